"""The same pairs, model and adapter give the loss that TRL's DPOTrainer computes."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_qagent.core.pairs import PreferencePair
from lit_qagent.data.batch import collate_pairs
from lit_qagent.data.rendered import render_pair
from lit_qagent.data.rendering import SequenceRenderer
from lit_qagent.models.specs import BackboneSpec
from lit_qagent.policies.chat import load_renderer
from lit_qagent.training.losses import LossSpec, pair_losses
from tests.pair_folder import make_pair
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import tiny_q_model, tiny_spec

RANK = 4
# All warn of their own affairs while they are imported or built.
pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]


def our_losses(spec: BackboneSpec, pairs: Sequence[PreferencePair]) -> list[float]:
    q_model = tiny_q_model(spec, rank=RANK)
    renderer = SequenceRenderer(load_renderer(spec.name), 2048)
    rendered = [tokens for pair in pairs if (tokens := render_pair(pair, renderer)) is not None]
    batch = collate_pairs(rendered, "batch")
    with torch.no_grad():
        found = pair_losses(LossSpec(), q_model(batch.tokens), batch.q_hat)
    losses: list[float] = found.losses.tolist()
    return losses


def trl_losses(spec: BackboneSpec, pairs: Sequence[PreferencePair], folder: Path) -> list[float]:
    """One loss per pair, by TRL's own collator and loss; its adapter is made equal to ours."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    columns = [asdict(pair) for pair in pairs]
    rows = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in columns]
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(spec.name, dtype=torch.float32),
        args=DPOConfig(
            output_dir=str(folder),
            beta=0.1,
            max_length=None,
            per_device_train_batch_size=1,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            report_to="none",
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(spec.name),
        peft_config=LoraConfig(
            r=RANK, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    copy_adapter(tiny_q_model(spec, rank=RANK), trainer.model)
    losses = []
    with torch.no_grad():
        for row in range(len(rows)):
            batch: dict[str, Any] = trainer.data_collator([trainer.train_dataset[row]])
            losses.append(float(trainer.compute_loss(trainer.model, batch)))
    return losses


def copy_adapter(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Copy the LoRA weights in order; both sides name the same layers in the same order."""
    ours, theirs = (
        [p for name, p in module.named_parameters() if "lora_" in name]
        for module in (source, target)
    )
    with torch.no_grad():
        for mine, other in zip(ours, theirs, strict=True):
            other.copy_(mine)


def compare(spec: BackboneSpec, folder: Path) -> None:
    pairs = [make_pair(0, 0), make_pair(1, 2)]

    ours, theirs = our_losses(spec, pairs), trl_losses(spec, pairs, folder)

    assert ours == pytest.approx(theirs, abs=1e-4)
    assert all(abs(loss - 0.6931) > 1e-3 for loss in ours)  # the adapter counts


def test_losses_equal_trls_on_the_tiny_model(tmp_path: Path) -> None:
    compare(tiny_spec(save_tiny_model(tmp_path / "model")), tmp_path)


def test_losses_equal_trls_on_the_real_model(smollm2: Path, tmp_path: Path) -> None:
    compare(tiny_spec(smollm2), tmp_path)

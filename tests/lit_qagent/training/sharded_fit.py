"""Trains on two CPU processes with FSDP2: ``sharded_fit.py MODEL PAIRS OUTPUT``.

Lightning starts the second process by calling this file again.
"""

import sys
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy

from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.models.q_heads import BothQHeads, ImplicitQHead, QHead
from lit_qagent.models.specs import LoraSpec
from lit_qagent.training.callbacks import ExportCheckpoint
from lit_qagent.training.module import StepDPO
from tests.tiny_q_model import tiny_spec

CLIP_NORM, CLIP_VALUE = (0.05, "norm"), (0.001, "value")  # both well below the gradients


def fit(  # noqa: PLR0913 (what the runs differ in)
    model: Path,
    pairs: Path,
    output: Path,
    lora: LoraSpec | None,
    epochs: int = 2,
    ckpt_path: Path | None = None,
    q_head: QHead = ImplicitQHead(beta=0.1),  # noqa: B008 (copied)
    clip: tuple[float, str] | None = None,
) -> None:
    pl.seed_everything(42, verbose=False)
    module = StepDPO(
        tiny_spec(model),
        lora,
        q_head,
        reference="copy" if lora is None else "live",
        # Lightning cannot resume an optimizer without a state.
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.5),
        warmup_fraction=0,
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=ModelParallelStrategy(
            data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=False
        ),
        max_epochs=epochs,
        gradient_clip_val=clip and clip[0],
        gradient_clip_algorithm=clip and clip[1],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            # The last step is the best one, so what is exported is read from the file.
            ModelCheckpoint(output, "last", monitor="step", mode="max"),
            ExportCheckpoint(output / "out"),
        ],
    )
    trainer.fit(module, PreferenceDataModule(pairs, batch_size=2), ckpt_path=ckpt_path)


if __name__ == "__main__":
    model, pairs, output = map(Path, sys.argv[1:])
    fit(model, pairs, output / "full", None)
    fit(model, pairs, output / "first", LoraSpec(rank=2), epochs=1)
    fit(model, pairs, output / "lora", LoraSpec(rank=2), ckpt_path=output / "first" / "last.ckpt")
    fit(model, pairs, output / "clipped", LoraSpec(rank=2), q_head=BothQHeads(), clip=CLIP_NORM)
    fit(model, pairs, output / "cut", LoraSpec(rank=2), q_head=BothQHeads(), clip=CLIP_VALUE)

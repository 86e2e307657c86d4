"""One side of bench_training.py in a process of its own; the last line it prints is JSON.

Both sides: the same pairs, SmolLM2-135M in float32, the same random LoRA adapter (rank 16 on every
linear layer), no dropout, no gradient checkpointing, reference log-probabilities computed before.
A fresh adapter would give every pair the loss log 2 and prove nothing.
"""

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads burn no CPU time
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RANK, ALPHA, BETA = 16, 32, 0.1
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=["ours", "ours-same", "trl", "trl-stock"], required=True)
    parser.add_argument("--pairs", type=Path, required=True, help="JSON lines, TRL's chat format")
    parser.add_argument("--num-pairs", type=int, required=True)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--reference", type=Path, help="another side's result: its reference")
    options = parser.parse_args()
    rows = read_rows(options.pairs)[: options.num_pairs]
    run = run_ours if options.side.startswith("ours") else run_trl
    result = run(rows, options)
    result["peak_gb"] = peak_gb()
    result["device"] = DEVICE
    sys.stdout.write(json.dumps(result) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def model_folder() -> str:
    from lit_qagent.policies.pretrained import resolve_model

    return resolve_model("SmolLM2-135M-Instruct")


def fill_adapter(module: torch.nn.Module) -> None:
    """Give both sides the same weights: names sorted, one generator."""
    generator = torch.Generator().manual_seed(1)
    found = {name.split("base_model.")[-1]: p for name, p in module.named_parameters()}
    with torch.no_grad():
        for name in sorted(found):
            scale = found[name].shape[1] ** -0.5 if "lora_A" in name else 0.02
            if "lora_" in name:
                found[name].copy_(torch.randn(found[name].shape, generator=generator) * scale)


def wait_for_device() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


class Stopwatch:
    """Wall and CPU seconds of a block; CPU seconds are what other work cannot change."""

    def __enter__(self) -> "Stopwatch":
        wait_for_device()
        self._start = (time.perf_counter(), time.process_time())
        return self

    def __exit__(self, *_: object) -> None:
        wait_for_device()
        self.wall = time.perf_counter() - self._start[0]
        self.cpu = time.process_time() - self._start[1]


def run_ours(rows: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    from lit_qagent.core.records import Message
    from lit_qagent.data.batch import PairTokens, collate_pairs
    from lit_qagent.data.rendering import TokenSequence
    from lit_qagent.models.backbone import build_backbone
    from lit_qagent.models.q_heads import ImplicitQHead
    from lit_qagent.models.q_model import QModel
    from lit_qagent.models.specs import BackboneSpec, LoraSpec
    from lit_qagent.policies.chat import load_renderer
    from lit_qagent.training.losses import LossSpec, pair_losses

    folder = model_folder()
    spec = BackboneSpec(name=folder, dtype="float32")
    q_model = QModel(
        build_backbone(spec, LoraSpec(rank=RANK, alpha=ALPHA, target_modules=TARGETS)),
        ImplicitQHead(beta=BETA),
    )
    q_model.to(DEVICE)
    fill_adapter(q_model.backbone.model)
    chat = load_renderer(folder)

    def tokens(row: dict[str, Any]) -> PairTokens:
        prompt = chat.prompt_ids([Message(**message) for message in row["prompt"]])
        actions = [chat.action_ids(row[key][0]["content"]) for key in ("chosen", "rejected")]
        chosen, rejected = (TokenSequence(prompt, action) for action in actions)
        return PairTokens(chosen, rejected, 0.0, 0.0, depth=len(row["prompt"]) // 2)

    pairs = [tokens(row) for row in rows]
    if options.side == "ours-same":
        size = options.batch
        plan = [list(range(i, i + size)) for i in range(0, len(pairs), size)]
    else:
        plan = by_trajectory(rows)
    optimizer = torch.optim.AdamW([p for p in q_model.parameters() if p.requires_grad], lr=0.0)
    losses: dict[int, float] = {}
    steps, reference_cpu, unshared = [], 0.0, 0
    for indices in plan:
        chosen_pairs = [pairs[i] for i in indices]
        ready = collate_pairs(chosen_pairs, "batch").to(DEVICE)
        with Stopwatch() as once:
            reference = q_model.reference_log_probs(ready.tokens)
        reference_cpu += once.cpu
        with Stopwatch() as step:
            batch = collate_pairs(chosen_pairs, "batch").to(DEVICE)
            q = q_model.head(q_model.evidence(batch.tokens, reference))
            found = pair_losses(LossSpec(), q, batch.q_hat)
            found.losses.mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        unshared += batch.num_unshared_tokens
        losses |= dict(zip(indices, found.losses.tolist(), strict=True))
        steps.append(
            {
                "pairs": len(indices),
                "tokens": batch.tokens.token_ids.numel(),
                "cpu_s": step.cpu,
                "wall_s": step.wall,
            }
        )
    ordered = [losses[i] for i in range(len(pairs))]
    return {
        "steps": steps,
        "pair_losses": ordered,
        "reference_cpu_s": reference_cpu,
        "unshared_tokens": unshared,
    }


def by_trajectory(rows: list[dict[str, Any]]) -> list[list[int]]:
    """Group pairs by their first message, which holds the task."""
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(json.dumps(row["prompt"][0]), []).append(index)
    return list(groups.values())


def run_trl(rows: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    import tempfile

    import trl.trainer.utils
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    if options.side == "trl":
        # On GPUs TRL scores answer positions only; let it do the same on a CPU.
        trl.trainer.utils._use_triton = lambda device: True
    known = json.loads(options.reference.read_text()) if options.reference else None

    class Trainer(DPOTrainer):  # type: ignore[misc]
        def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:  # noqa: ANN401
            if known is None:
                with Stopwatch() as self.reference_time:
                    return super()._precompute_ref_logps(dataset, name, batch_size)
            for column, values in known["reference"].items():
                dataset = dataset.add_column(column, values[: len(dataset)])
            return dataset

    folder = model_folder()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            args=DPOConfig(
                output_dir=scratch,
                beta=BETA,
                max_length=None,
                per_device_train_batch_size=options.batch,
                precompute_ref_log_probs=True,
                bf16=False,
                gradient_checkpointing=False,
                use_cpu=not torch.cuda.is_available(),
                report_to="none",
                learning_rate=0.0,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(folder),
            peft_config=LoraConfig(
                r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, task_type="CAUSAL_LM"
            ),
        )
        fill_adapter(trainer.model)
        trainer.current_gradient_accumulation_steps = 1  # train() would set it
        return time_trl(trainer, options.batch)


def time_trl(trainer: Any, size: int) -> dict[str, Any]:  # noqa: ANN401 (TRL has no types)
    trainable = [p for p in trainer.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=0.0)
    data = trainer.train_dataset
    steps, losses = [], []
    for start in range(0, len(data), size):
        examples = [data[i] for i in range(start, start + size)]
        with Stopwatch() as step:
            batch = trainer.data_collator(examples)
            loss = trainer.training_step(trainer.model, batch)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(float(loss))
        steps.append(
            {
                "pairs": size,
                "tokens": batch["input_ids"].numel(),
                "cpu_s": step.cpu,
                "wall_s": step.wall,
            }
        )
    once = getattr(trainer, "reference_time", None)
    return {
        "steps": steps,
        "batch_losses": losses,
        "reference_cpu_s": once.cpu if once else None,
        "reference": {key: list(data[key]) for key in ("ref_chosen_logps", "ref_rejected_logps")},
    }


def peak_gb() -> float:
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


if __name__ == "__main__":
    main()

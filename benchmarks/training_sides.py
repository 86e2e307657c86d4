"""One side of bench_training.py in a process of its own; the last line it prints is JSON.

Both sides: the same pairs, model, random LoRA adapter (rank 16 on every linear layer) and type of
numbers, no dropout, reference log-probabilities known before, lr 0. A step is collating, forward,
backward and optimizer.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads burn no CPU time
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from training_data import by_trajectory, read_rows
from training_models import (
    BETA,
    fill_adapter,
    load_model,
    load_q_model,
    lora,
    size_of,
    tokenizer_folder,
)

REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=["ours", "trl", "trl-stock"], required=True)
    parser.add_argument("--pairs", type=Path, required=True, help="JSON lines, TRL's chat format")
    parser.add_argument("--rows", type=int, nargs="*", help="which lines; all if left out")
    parser.add_argument("--short", type=Path, help="a second set, after the first")
    parser.add_argument("--same", type=int, default=0, help="ours: also so many pairs as TRL has")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--reference", type=Path, help="another side's result: its reference")
    parser.add_argument("--shape", help="random weights of this shape; else SmolLM2-135M")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--warm-up", type=int, default=0, help="steps before the clock starts")
    options = parser.parse_args()
    rows = read_rows(options.pairs)
    rows = [rows[i] for i in options.rows] if options.rows else rows
    side = OurSide(options) if options.side == "ours" else TRLSide(options)
    result: dict[str, Any] = {}
    try:
        result["main"] = side.measure(rows, options)
        result["peak_gb"] = peak_gb(options.device)
        if options.same:
            result["same"] = side.measure(rows[: options.same], options, same_batches=True)
        if options.short:
            result["short"] = side.measure(read_rows(options.short), options, same_batches=True)
    except torch.OutOfMemoryError:
        result = {"out_of_memory": True}
    result |= {"device": options.device, "size": vars(side.size) if side.size else None}
    if options.device == "cuda":
        result["device_name"] = torch.cuda.get_device_name()
    sys.stdout.write(json.dumps(result) + "\n")


class Stopwatch:
    """Wall and CPU seconds of a block; CPU seconds are what other work cannot change."""

    def __init__(self, device: str) -> None:
        self._device = device

    def __enter__(self) -> "Stopwatch":
        self._wait()
        self._start = (time.perf_counter(), time.process_time())
        return self

    def __exit__(self, *_: object) -> None:
        self._wait()
        self.wall_s = time.perf_counter() - self._start[0]
        self.cpu_s = time.process_time() - self._start[1]

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()


def entry(num_pairs: int, clock: Stopwatch, counts: dict[str, int]) -> dict[str, Any]:
    return {"pairs": num_pairs, "cpu_s": clock.cpu_s, "wall_s": clock.wall_s, **counts}


class OurSide:
    """Packed rows: a whole trajectory in one, or the batches that TRL gets."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.model = load_q_model(
            options.shape,
            device=options.device,
            dtype=options.dtype,
            checkpointing=options.checkpointing,
        )
        backbone = self.model.backbone
        self.size = size_of(backbone.model, backbone.language_model.config)
        self._folder = tempfile.TemporaryDirectory()
        from lit_qagent.policies.chat import load_renderer

        self._chat = load_renderer(tokenizer_folder(options.shape, Path(self._folder.name)))
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(trainable, lr=0.0)

    def measure(
        self, rows: list[dict[str, Any]], options: argparse.Namespace, *, same_batches: bool = False
    ) -> dict[str, Any]:
        pairs = [self._tokens(row) for row in rows]
        plan = by_trajectory(rows)
        if same_batches:
            size = options.batch
            plan = [list(range(i, min(i + size, len(rows)))) for i in range(0, len(rows), size)]
        for indices in (plan * options.warm_up)[: options.warm_up]:
            self._step([pairs[i] for i in indices], options)
        forget_peak(options.device)
        losses: dict[int, float] = {}
        known: dict[int, list[float]] = {}
        steps = []
        for indices in plan:
            step, found, reference = self._step([pairs[i] for i in indices], options)
            steps.append(step)
            losses |= dict(zip(indices, found, strict=True))
            known |= dict(zip(indices, reference, strict=True))
        columns = zip(*(known[i] for i in range(len(pairs))), strict=True)
        return {
            "steps": steps,
            "pair_losses": [losses[i] for i in range(len(pairs))],
            "reference": dict(zip(REFERENCE, map(list, columns), strict=True)),
        }

    def _step(
        self, pairs: list[Any], options: argparse.Namespace
    ) -> tuple[dict[str, Any], list[float], list[list[float]]]:
        from lit_qagent.data.batch import collate_pairs
        from lit_qagent.training.losses import LossSpec, pair_losses

        ready = collate_pairs(pairs, "batch").to(options.device)
        with Stopwatch(options.device) as before:
            reference = self.model.reference_log_probs(ready.tokens)
        with Stopwatch(options.device) as clock:
            batch = collate_pairs(pairs, "batch").to(options.device)
            q = self.model.head(self.model.evidence(batch.tokens, reference))
            found = pair_losses(LossSpec(), q, batch.q_hat)
            found.losses.mean().backward()
            self._optimizer.step()
            self._optimizer.zero_grad()
        tokens = batch.tokens
        counts = {
            "padded_tokens": tokens.token_ids.numel(),
            "tokens": int(tokens.is_token.sum()),
            "unshared_tokens": batch.num_unshared_tokens,
            "cells": int((tokens.position_ids + 1)[tokens.is_token].sum()),
            "scored": len(tokens.targets),
        }
        step = {**entry(len(pairs), clock, counts), "reference_cpu_s": before.cpu_s}
        return step, found.losses.tolist(), reference.view(-1, 2).tolist()

    def _tokens(self, row: dict[str, Any]) -> Any:  # noqa: ANN401
        from lit_qagent.core.records import Message
        from lit_qagent.data.batch import PairTokens
        from lit_qagent.data.rendering import TokenSequence

        prompt = self._chat.prompt_ids([Message(**message) for message in row["prompt"]])
        actions = [self._chat.action_ids(row[key][0]["content"]) for key in ("chosen", "rejected")]
        chosen, rejected = (TokenSequence(prompt, action) for action in actions)
        return PairTokens(chosen, rejected, 0.0, 0.0, depth=len(row["prompt"]) // 2)


class TRLSide:
    """TRL's own trainer: its data preparation, collator and training step."""

    def __init__(self, options: argparse.Namespace) -> None:
        import trl.trainer.utils

        if options.side == "trl" and options.device == "cpu":
            # On GPUs TRL scores answer positions only; let it do the same on a CPU.
            trl.trainer.utils._use_triton = lambda device: True
        self._folder = tempfile.TemporaryDirectory()
        self._tokenizer = tokenizer_folder(options.shape, Path(self._folder.name) / "tokenizer")
        self._known = json.loads(options.reference.read_text()) if options.reference else None
        self.size: Any = None

    def measure(
        self, rows: list[dict[str, Any]], options: argparse.Namespace, *, same_batches: bool = False
    ) -> dict[str, Any]:
        """``same_batches``: the reference of these rows is not known, TRL computes it."""
        trainer = self._trainer(rows, options, None if same_batches else self._known)
        data, size = trainer.train_dataset, options.batch
        trainable = [p for p in trainer.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=0.0)
        starts = list(range(0, len(data), size))
        steps, losses = [], []
        for number, start in enumerate([*starts[: options.warm_up], *starts]):
            if number == options.warm_up:
                forget_peak(options.device)
            examples = [data[i] for i in range(start, min(start + size, len(data)))]
            with Stopwatch(options.device) as clock:
                batch = trainer.data_collator(examples)
                loss = trainer.training_step(trainer.model, batch)
                optimizer.step()
                optimizer.zero_grad()
            if number >= options.warm_up:
                losses.append(float(loss))
                steps.append(entry(len(examples), clock, self._counts(batch)))
        return {
            "steps": steps,
            "batch_losses": losses,
            "reference_cpu_s": trainer.reference_cpu_s,
            "reference": {key: list(data[key]) for key in REFERENCE},
        }

    def _counts(self, batch: dict[str, Any]) -> dict[str, int]:
        lengths = batch["attention_mask"].sum(dim=1)
        return {
            "padded_tokens": batch["input_ids"].numel(),
            "tokens": int(lengths.sum()),
            "unshared_tokens": int(lengths.sum()),
            "cells": int((lengths * (lengths + 1) // 2).sum()),
            "scored": int(batch["completion_mask"].sum()),
        }

    def _trainer(
        self, rows: list[dict[str, Any]], options: argparse.Namespace, known: dict[str, Any] | None
    ) -> Any:  # noqa: ANN401 (TRL has no types)
        from datasets import Dataset
        from peft import LoraConfig
        from transformers import AutoTokenizer
        from trl import DPOConfig, DPOTrainer

        class Trainer(DPOTrainer):  # type: ignore[misc]
            reference_cpu_s = None

            def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:  # noqa: ANN401
                if known is None:
                    # The adapter is still fresh, so the model is its own reference.
                    with Stopwatch(options.device) as clock:
                        dataset = super()._precompute_ref_logps(dataset, name, batch_size)
                    self.reference_cpu_s = clock.cpu_s
                    return dataset
                for column in REFERENCE:
                    dataset = dataset.add_column(column, known[column][: len(dataset)])
                return dataset

        model = load_model(
            options.shape, device=options.device, dtype=options.dtype, attention="sdpa"
        )
        if options.checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        trainer = Trainer(
            model=model,
            args=DPOConfig(
                output_dir=self._folder.name,
                beta=BETA,
                max_length=None,
                per_device_train_batch_size=options.batch,
                precompute_ref_log_probs=True,
                bf16=False,
                gradient_checkpointing=False,  # set above, as it is without train()
                use_cpu=options.device == "cpu",
                report_to="none",
                learning_rate=0.0,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(self._tokenizer),
            peft_config=LoraConfig(**lora()),
        )
        fill_adapter(trainer.model)
        trainer.current_gradient_accumulation_steps = 1  # train() would set it
        self.size = size_of(trainer.model, model.config)
        return trainer


def forget_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_gb(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


if __name__ == "__main__":
    main()

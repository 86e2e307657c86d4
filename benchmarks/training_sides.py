"""One side of bench_training.py in a process of its own; the last line it prints is JSON.

Both sides: the same pairs, model, random LoRA adapter (rank 16 on every linear layer) and type of
numbers, no dropout, reference log-probabilities known before, lr 0. A step is collating, forward,
backward and optimizer.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads burn no CPU time
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from training_clock import REFERENCE, Stopwatch, entry, forget_peak, peak_gb
from training_data import by_trajectory, read_rows
from training_models import load_q_model, size_of, tokenizer_folder
from training_trl import TRLSide


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=["ours", "trl", "trl-stock"], required=True)
    parser.add_argument("--pairs", type=Path, required=True, help="JSON lines, TRL's chat format")
    parser.add_argument("--rows", type=int, nargs="*", help="which lines; all if left out")
    parser.add_argument("--short", type=Path, help="a second set, after the first")
    parser.add_argument("--same", type=int, default=0, help="ours: also so many pairs as TRL has")
    parser.add_argument("--forest", type=int, default=1, help="ours: trajectories in a batch")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--reference", type=Path, help="another side's result: its reference")
    parser.add_argument("--shape", help="random weights of this shape; else SmolLM2-135M")
    parser.add_argument("--layers", type=int, help="so many layers of the shape")
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


class OurSide:
    """Packed rows: a whole trajectory in one, or the batches that TRL gets."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.model = load_q_model(
            options.shape,
            layers=options.layers,
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
        alone = by_trajectory(rows)
        forests = [alone[i : i + options.forest] for i in range(0, len(alone), options.forest)]
        plan = [[index for tree in forest for index in tree] for forest in forests]
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


if __name__ == "__main__":
    main()

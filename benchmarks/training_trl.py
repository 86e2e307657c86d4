"""TRL's side of bench_training.py."""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from training_clock import REFERENCE, Stopwatch, entry, forget_peak
from training_models import BETA, fill_adapter, load_model, lora, size_of, tokenizer_folder


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
            options.shape,
            layers=options.layers,
            device=options.device,
            dtype=options.dtype,
            attention="sdpa",
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

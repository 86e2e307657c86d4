"""StepDPO: connects Q-model, loss and metrics to the Lightning trainer."""

import copy
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from lit_qagent.core.errors import ConfigError
from lit_qagent.data.batch import PairBatch, TokenBatch
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.data.rendering import SequenceRenderer
from lit_qagent.data.tokenizers import TOKENIZER_KEY, check_tokenizer
from lit_qagent.models.backbone import build_backbone
from lit_qagent.models.export import is_whole, load_q_model, read_checkpoint
from lit_qagent.models.fingerprint import BASE_KEY, check_base, fingerprint
from lit_qagent.models.q_heads import ImplicitQHead, QHead
from lit_qagent.models.q_model import QModel
from lit_qagent.models.scorer import DEFAULT_CACHE_GB, QScorer, check_cache_gb
from lit_qagent.models.specs import BackboneSpec, LoraSpec
from lit_qagent.policies.chat import load_renderer
from lit_qagent.policies.pretrained import resolve_model
from lit_qagent.training.checks import (
    check_all_in_memory,
    check_context,
    check_precision,
    check_reference,
    check_same_model,
    check_weights,
    report_other_head,
    report_other_split,
    report_rounding,
    report_shortened,
    report_untrained,
)
from lit_qagent.training.guarded import GuardedModule
from lit_qagent.training.guards import memory_advice, refuse_bad_losses, unsaved
from lit_qagent.training.lineage import identify, merge_lineage
from lit_qagent.training.losses import LossSpec
from lit_qagent.training.metrics import PreferenceMetrics, preference_accuracy
from lit_qagent.training.pair_table import details
from lit_qagent.training.reference import fill_reference
from lit_qagent.training.resume import rewind_to_last_step
from lit_qagent.training.saved import plain_arguments
from lit_qagent.training.schedule import with_warmup
from lit_qagent.training.shard import EpisodeShard
from lit_qagent.training.sharding import shard_backbone
from lit_qagent.training.step import compute_step

_DEFAULT_MAX_LENGTH = 2048
_DEFAULT_HEAD = ImplicitQHead(beta=0.1)  # as below, where `--print_config` has to read it


class StepDPO(GuardedModule):
    """Trains a Q-model on step-level preference pairs, and lends it to agents at ``predict``.

    Args:
        backbone: Which LLM; None takes the checkpoint's, held as in training, else SmolLM2-135M.
        lora: Its adapter; null trains all weights. Not used with a checkpoint, which brings its
            own adapter or weights.
        q_head: From log-probabilities to Q; a checkpoint's own head goes before it.
        loss: Which loss the pairs are trained with.
        reference: ``cached`` computes the reference's log-probabilities once, before the first
            step, and keeps them on disk; ``live`` computes them with every batch, by the adapter
            switched off; ``copy`` does so by a second copy of the model where all weights are
            trained.
        optimizer: Made from the trainable parameters.
        warmup_fraction: Share of the steps in which the learning rate rises from 0; constant
            afterwards.
        max_length: Context limit in tokens; None takes the checkpoint's, else 2048.
        checkpoint: Shareable checkpoint folder to go on from or to predict with.
        scorer_cache_gb: At ``predict``: most memory (1e9 bytes) for keys and values of the
            histories in flight; see `QScorer`.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        ConfigError: A value is out of range.
    """

    def __init__(  # noqa: PLR0913 (the sections of the YAML)
        self,
        backbone: BackboneSpec | None = None,
        lora: LoraSpec | None = LoraSpec(),  # noqa: B008 (frozen)
        q_head: QHead = ImplicitQHead(beta=0.1),  # noqa: B008 (copied)
        loss: LossSpec = LossSpec(),  # noqa: B008 (frozen)
        reference: Literal["cached", "live", "copy"] = "cached",
        optimizer: OptimizerCallable = torch.optim.AdamW,
        warmup_fraction: float = 0.1,
        max_length: int | None = None,
        checkpoint: Path | None = None,
        scorer_cache_gb: float = DEFAULT_CACHE_GB,
    ) -> None:
        super().__init__()
        check_cache_gb("model.scorer_cache_gb", scorer_cache_gb)
        if not 0 <= warmup_fraction < 1:
            raise ConfigError(f"model.warmup_fraction must be in [0, 1), got {warmup_fraction}")
        start = read_checkpoint(checkpoint) if checkpoint else None
        is_adapted = not is_whole(checkpoint) if checkpoint else lora is not None
        if q_head.needs_reference:
            check_reference(reference, is_adapted=is_adapted)
        self.q_model: QModel | None = None
        self.max_length = max_length or (start.max_length if start else _DEFAULT_MAX_LENGTH)
        self.lineage: dict[str, Any] = dict(start.lineage) if start else {}
        self.tables: dict[str, Tensor] = {}
        self.metrics = nn.ModuleDict()  # of each held-out set, by its prefix
        self._backbone = backbone or (start.backbone if start else BackboneSpec())
        self._lora = lora
        self._head = copy.deepcopy(q_head)  # the default is one object for all modules
        self._loss = loss
        self._reference = reference
        self._optimizer = optimizer
        self._warmup_fraction = warmup_fraction
        self._checkpoint = checkpoint
        self._scorer_cache_gb = scorer_cache_gb
        self._renderer: SequenceRenderer | None = None
        self._scorer: QScorer | None = None
        self.save_hyperparameters(
            plain_arguments(
                backbone=self._backbone,
                lora=lora,
                q_head=self._head,
                loss=loss,
                reference=reference,
                warmup_fraction=warmup_fraction,
                max_length=self.max_length,
                checkpoint=checkpoint,
            )
        )

    def configure_model(self) -> None:
        """Load the weights; does nothing the second time."""
        if self.q_model is not None:
            return
        if self._checkpoint is None:
            backbone = build_backbone(self._backbone, self._lora)
            if not backbone.is_adapted and self._head.needs_reference and self._holds_original:
                backbone.keep_original()
            self.q_model = QModel(backbone, self._head)
        else:
            self.q_model = load_q_model(
                self._checkpoint,
                self._backbone,
                trainable=True,
                with_original=self._holds_original,
            )
            report_other_head(used=self.q_model.head, given=self._head, default=_DEFAULT_HEAD)
        report_rounding(self.q_model, self._reference)
        if self.device_mesh is not None:
            shard_backbone(self.q_model.backbone, self.device_mesh)
            self.strict_loading = False  # a `.ckpt` has the trained weights only
        check_context(self.max_length, self.q_model.backbone)

    def setup(self, stage: str) -> None:
        """Take over the lineage of the pairs that are trained on; make metrics for every set.

        Raises:
            ConfigError: The trainer's precision is not for this model.
        """
        check_precision(str(self.trainer.precision))
        data = getattr(self.trainer, "datamodule", None)
        for prefix in {*self._held_out("val"), *self._held_out("test")}.difference(self.metrics):
            self.metrics[prefix] = PreferenceMetrics()
        if stage == "fit" and isinstance(data, PreferenceDataModule):
            now = {**data.lineage, TOKENIZER_KEY: self.renderer.chat.fingerprint}
            self.lineage = merge_lineage(now, self.lineage)

    def on_fit_start(self) -> None:
        """Note the base model; compute or read the reference's log-probabilities, once for all.

        Says so if an earlier training held out other pairs.
        """
        self._compare_split()
        data = getattr(self.trainer, "datamodule", None)
        model = self._model()
        if base := fingerprint(model.backbone):
            self.lineage[BASE_KEY] = base
        wanted = self._reference == "cached" and model.head.needs_reference
        if wanted and isinstance(data, PreferenceDataModule):
            check_all_in_memory(streaming=data.streaming)
            # Lightning opens its precision context around steps only.
            with memory_advice("reference"), self.trainer.precision_plugin.forward_context():
                fill_reference(
                    data,
                    model,
                    precision=str(self.trainer.precision),
                    write=self.trainer.is_global_zero,
                    agree=self._agree,
                )

    def on_validation_start(self) -> None:
        """Say so if the held-out pairs are not those of training; `fit` does so at its start."""
        if self.trainer.state.fn == TrainerFn.VALIDATING:
            self._compare_split()

    def on_test_start(self) -> None:
        """Say so if the held-out pairs are not those of training."""
        self._compare_split()

    @property
    def longest_shared(self) -> int:
        """Most tokens of a sequence that may share a row, for the data module; 0 if none may."""
        return self._model().backbone.longest_shared

    @property
    def renderer(self) -> SequenceRenderer:
        """Chat template, tokenizer and context limit, for the data module."""
        if self._renderer is None:
            self._renderer = self._new_renderer()
        return self._renderer

    def scorer(self) -> QScorer:
        """Return the Q-model as agents use it; the same object each time.

        Raises:
            ConfigError: The weights were not loaded yet.
        """
        if self._scorer is None:
            self._scorer = QScorer(
                self._model(), self._new_renderer(), cache_gb=self._scorer_cache_gb
            )
        return self._scorer

    def forward(self, batch: TokenBatch) -> Tensor:
        """Return Q of each action, float32 [S]."""
        q: Tensor = self._model()(batch)
        return q

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, scaled so that every pair of a step weighs the same."""
        with memory_advice():
            output = compute_step(self._model(), batch, self._loss)
        losses = output.pair_losses.losses
        with unsaved(self._trainer):
            refuse_bad_losses(losses, batch.names, agree=self._agree)
        values = {
            "train/accuracy": preference_accuracy(output.pair_losses.margins).mean(),
            "train/margin": output.pair_losses.margins.mean(),
        }
        self.log("train/loss", losses.mean(), prog_bar=True, batch_size=batch.num_pairs)
        self.log_dict(values, batch_size=batch.num_pairs)
        return losses.sum() / batch.mean_over

    def validation_step(self, batch: PairBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure a batch of validation pairs, or of a further held-out set."""
        self._measure(batch, self._held_out("val")[dataloader_idx])

    def test_step(self, batch: PairBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure a batch of test pairs, or of a further held-out set."""
        self._measure(batch, self._held_out("test")[dataloader_idx])

    def on_validation_epoch_end(self) -> None:
        """Log where Q is right and what it follows."""
        self._log_details("val")

    def on_test_epoch_end(self) -> None:
        """Log where Q is right and what it follows."""
        self._log_details("test")

    def on_predict_start(self) -> None:
        """Say so if there is nothing that was trained."""
        report_untrained(self._model().backbone)

    def predict_step(self, batch: EpisodeShard, batch_idx: int) -> Any:  # noqa: ANN401
        """Play a shard of held-out tasks; returns what the shard returns."""
        identity = identify(self.trainable(), self._backbone, self._model().head, self.max_length)
        scorer = self.scorer()
        try:
            return batch.play(scorer, self.lineage | identity)
        finally:
            report_shortened(scorer.counts, self.max_length)

    def configure_optimizers(self) -> Any:  # noqa: ANN401 (Lightning's union of dictionaries)
        """Make the optimizer of the trainable weights, with linear warm-up."""
        optimizer = self._optimizer([p for p in self.parameters() if p.requires_grad])
        return with_warmup(optimizer, self.trainer, self._warmup_fraction)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep trainable weights only; add lineage and the metrics of the moment."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["lineage"] = self.lineage
        rewind_to_last_step(checkpoint, self.trainer)
        metrics = self.trainer.callback_metrics
        checkpoint["metrics"] = {name: float(value) for name, value in metrics.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the weights fit, and take over the lineage.

        Raises:
            CheckpointError: It is of another base model or tokenizer, or trainable weights are
                missing, unexpected, or of another shape.
        """
        check_same_model(checkpoint, self._backbone, self.renderer.chat)
        if self._model().needs_base:
            check_base(self._model().backbone, checkpoint.get("lineage", {}))
        # DeepSpeed and FSDP2 have loaded the weights themselves, and give only the rest.
        if "state_dict" in checkpoint:
            check_weights(checkpoint["state_dict"], self.trainable())
        self.lineage = merge_lineage(self.lineage, checkpoint.get("lineage", {}))

    def _held_out(self, stage: str) -> list[str]:
        """Return the prefixes of what is measured, in the order of the loaders."""
        data = getattr(self.trainer, "datamodule", None)
        return data.held_out(stage) if isinstance(data, PreferenceDataModule) else [stage]

    def _metrics_of(self, prefix: str) -> PreferenceMetrics:
        return self.metrics[prefix]  # type: ignore[return-value]

    def _compare_split(self) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, PreferenceDataModule) and self.lineage:
            report_other_split(data.lineage, self.lineage)

    def _measure(self, batch: PairBatch, prefix: str) -> None:
        with memory_advice("held_out"):
            output = compute_step(self._model(), batch, self._loss)
        metrics = self._metrics_of(prefix)
        metrics.update(batch, output.q, output.pair_losses)
        self.log_dict(
            metrics.named(prefix),
            batch_size=batch.num_pairs,
            prog_bar=prefix == "val",
            add_dataloader_idx=False,  # the prefix tells the sets apart
        )

    def _log_details(self, stage: str) -> None:
        """Log what the tables of all pairs say; they are kept for the plots."""
        self.tables = {}
        for prefix in self._held_out(stage):
            self.tables[prefix] = self._metrics_of(prefix).table()
            found = {f"{prefix}/{name}": x for name, x in details(self.tables[prefix]).items()}
            # Each process has gathered all rows, so their mean over processes is the same.
            self.log_dict(found, sync_dist=True)

    def _model(self) -> QModel:
        if self.q_model is None:
            raise ConfigError("StepDPO has no weights yet; call configure_model first")
        return self.q_model

    @property
    def _holds_original(self) -> bool:
        """Whether a whole model needs its reference beside it; cached pairs are trained without."""
        trainer = self._trainer
        is_fitting = trainer is not None and trainer.state.fn == TrainerFn.FITTING
        return self._reference == "copy" or not is_fitting

    def _new_renderer(self) -> SequenceRenderer:
        chat = load_renderer(resolve_model(self._backbone.name), self._backbone.revision)
        check_tokenizer(chat, self.lineage)
        return SequenceRenderer(chat, self.max_length)

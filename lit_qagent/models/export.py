"""The shareable checkpoint: a folder of a few megabytes, safetensors, JSON and YAML only.

``adapter/`` is a PEFT folder (where all weights were trained ``model/`` holds them, and the folder
is as large as the model), ``q_head.safetensors`` a head's own weights if it has any,
``q_model.yaml`` holds everything else that scoring needs and the
lineage, ``README.md`` is the model card. The folder appears whole or not at all.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lit_qagent import __version__
from lit_qagent.core.errors import CheckpointError, ConfigError
from lit_qagent.data.rendering import RENDERING_VERSION
from lit_qagent.models.backbone import Backbone, load_backbone, load_whole_model
from lit_qagent.models.fingerprint import check_base
from lit_qagent.models.full_weights import CONFIG_FILE, save_weights
from lit_qagent.models.q_heads import QHead, make_head
from lit_qagent.models.q_model import QModel
from lit_qagent.models.specs import BackboneSpec

CHECKPOINT_VERSION = 1
CARD_FILE = "q_model.yaml"
ADAPTER_FOLDER = "adapter"
MODEL_FOLDER = "model"
HEAD_FILE = "q_head.safetensors"
_BACKBONE, _HEAD = "backbone.model.", "head."  # the parts of a model that are written
_AGAIN = "export it again with `python -m lit_qagent fit` and ExportCheckpoint"


@dataclass(frozen=True, kw_only=True)
class CheckpointCard:
    """What ``q_model.yaml`` says; plain values only.

    Attributes:
        backbone: The base model by its public name, and how it was held in training.
        head: Kind of the Q-head.
        head_settings: Its constructor's arguments.
        max_length: Context limit in training, in tokens.
        lineage: Where the training data comes from; ``task_ids`` must not be evaluated on.
        metrics: What was measured when the weights were chosen.
        rendering_version: Version of the chat rendering.
        checkpoint_version: Version of this format.
        program_version: Version of the program that wrote it.
    """

    backbone: BackboneSpec
    head: str
    head_settings: Mapping[str, Any]
    max_length: int
    lineage: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    rendering_version: str = RENDERING_VERSION
    checkpoint_version: int = CHECKPOINT_VERSION
    program_version: str = __version__


def describe(
    q_model: QModel,
    *,
    max_length: int,
    lineage: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> CheckpointCard:
    """Return the card of a model; the base model goes by its public name."""
    spec = q_model.backbone.spec
    return CheckpointCard(
        backbone=replace(spec, name=spec.public_name),
        head=q_model.head.kind,
        head_settings=q_model.head.settings(),
        max_length=max_length,
        lineage=lineage,
        metrics=metrics,
    )


def save_checkpoint(
    folder: Path,
    q_model: QModel,
    card: CheckpointCard,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint folder; an older checkpoint there is replaced.

    Args:
        folder: Where to write.
        q_model: The model.
        card: What the folder says about it.
        weights: All trained weights by their names in the model; None takes those in it.

    Raises:
        CheckpointError: The folder holds something else, or a weight belongs nowhere in it.
    """
    _refuse_unknown(q_model, weights or {})
    if folder.exists() and not (folder / CARD_FILE).is_file() and any(folder.iterdir()):
        raise CheckpointError(
            f"{str(folder)!r} exists and is not a checkpoint (no {CARD_FILE}); "
            "nothing was overwritten, give another folder"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        fresh, old = Path(scratch) / "new", Path(scratch) / "old"
        if q_model.backbone.is_adapted:
            q_model.backbone.save_adapter(fresh / ADAPTER_FOLDER, _part(weights, _BACKBONE))
        else:
            save_weights(
                q_model.backbone.language_model,
                fresh / MODEL_FOLDER,
                _part(weights, _BACKBONE),
            )
        head = q_model.head.state_dict() | (_part(weights, _HEAD) or {})
        if head:
            save_file({name: weight.cpu() for name, weight in head.items()}, fresh / HEAD_FILE)
        (fresh / CARD_FILE).write_text(
            yaml.safe_dump(asdict(card), sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
        is_whole = not q_model.backbone.is_adapted
        (fresh / "README.md").write_text(_model_card(card, is_whole), encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)


def _refuse_unknown(q_model: QModel, weights: Mapping[str, Tensor]) -> None:
    """Stop before a trained weight would be left out without a word."""
    parameters = dict(q_model.named_parameters(remove_duplicate=False))
    unknown = [n for n in weights if n not in parameters or not n.startswith((_BACKBONE, _HEAD))]
    if unknown:
        raise CheckpointError(
            f"{len(unknown)} of {len(weights)} trained weights belong to no part of the "
            f"checkpoint, such as {unknown[0]!r}; nothing was written, give the weights of "
            "backbone and head by their names in the Q-model"
        )


def _part(weights: Mapping[str, Tensor] | None, prefix: str) -> dict[str, Tensor] | None:
    """Return the weights of a part of the model, by their names in it."""
    if weights is None:
        return None
    return {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}


def read_checkpoint(folder: Path) -> CheckpointCard:
    """Read and check what a checkpoint folder says, without its weights.

    Raises:
        CheckpointError: The folder is missing, incomplete, damaged, or of another version.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"checkpoint: there is no folder {str(folder)!r}; train it with "
            "`python -m lit_qagent fit --config ...`, or give the folder of another checkpoint"
        )
    path = folder / CARD_FILE
    for file in (path, *_weight_files(folder)):
        if not file.is_file():
            raise CheckpointError(
                f"checkpoint {str(folder)!r} has no {file.relative_to(folder)}; give the folder "
                f"that training wrote (not a .ckpt file), or {_AGAIN}"
            )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{str(path)!r} is not YAML ({error}); {_AGAIN}") from error
    values = values if isinstance(values, dict) else {}
    _check_version(path, "checkpoint_version", values, CHECKPOINT_VERSION)
    _check_version(path, "rendering_version", values, RENDERING_VERSION)
    names = {entry.name for entry in fields(CheckpointCard)}
    if values.keys() != names:
        raise CheckpointError(
            f"{str(path)!r} has other fields than expected: "
            f"{', '.join(sorted(values.keys() ^ names))}; {_AGAIN}"
        )
    try:
        return CheckpointCard(**{**values, "backbone": BackboneSpec(**values["backbone"])})
    except (TypeError, ConfigError) as error:
        raise CheckpointError(
            f"{str(path)!r} describes no base model ({error}); {_AGAIN}"
        ) from error


def load_q_model(
    folder: Path,
    backbone: BackboneSpec | None = None,
    *,
    trainable: bool = False,
    with_original: bool = True,
) -> QModel:
    """Read a checkpoint folder and put its adapter on the base model, or all of its weights.

    Args:
        folder: What `save_checkpoint` wrote.
        backbone: Where the base model is and how to hold it; None takes what the card says.
        trainable: Go on training the adapter, or all weights.
        with_original: Where all weights were trained, and the head compares with the reference:
            hold the base model too.

    Raises:
        CheckpointError: The folder cannot be used, or ``backbone`` is another base model.
        ModelError: The base model cannot be found.
    """
    card = read_checkpoint(folder)
    spec = backbone or card.backbone
    if Path(spec.public_name).name != Path(card.backbone.name).name:
        raise CheckpointError(
            f"checkpoint {str(folder)!r} was trained on {card.backbone.name!r}, the backbone given "
            f"is {spec.name!r}; set model.backbone.name to the former, or give another checkpoint"
        )
    head = make_head(card.head, card.head_settings)
    if is_whole(folder):
        loaded: Backbone = load_whole_model(
            spec,
            folder / MODEL_FOLDER,
            trainable=trainable,
            with_original=with_original and head.needs_reference,
        )
    else:
        loaded = load_backbone(spec, folder / ADAPTER_FOLDER, trainable=trainable)
    q_model = QModel(loaded, head)
    if q_model.needs_base:
        check_base(loaded, card.lineage)
    if head.state_dict():
        _load_head(folder / HEAD_FILE, head)
    return q_model


def is_whole(folder: Path) -> bool:
    """Return whether a checkpoint folder has all weights and no adapter."""
    return (folder / MODEL_FOLDER).is_dir()


def _weight_files(folder: Path) -> list[Path]:
    """Return the files that the weights of a checkpoint need."""
    if is_whole(folder):
        return [folder / MODEL_FOLDER / CONFIG_FILE]
    return [folder / ADAPTER_FOLDER / name for name in _ADAPTER_FILES]


def _load_head(path: Path, head: QHead) -> None:
    try:
        head.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"the Q-head's weights {str(path)!r} cannot be used ({reason}); {_AGAIN}"
        ) from error


_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def _check_version(path: Path, name: str, values: Mapping[str, Any], expected: object) -> None:
    if values.get(name) != expected:
        raise CheckpointError(
            f"{str(path)!r} has {name} {values.get(name)!r}, this program (version {__version__}) "
            f"reads {expected!r}; use version {values.get('program_version', 'unknown')}, "
            f"or {_AGAIN}"
        )


def _model_card(card: CheckpointCard, is_whole: bool) -> str:
    """Return the README: what it is, how to use it, where it comes from."""
    lineage = {key: value for key, value in card.lineage.items() if key != "task_ids"}
    num_tasks = len(card.lineage.get("task_ids", ()))
    metrics = "\n".join(f"| {name} | {value:.4f} |" for name, value in card.metrics.items())
    details = yaml.safe_dump(lineage, sort_keys=False, allow_unicode=True)
    header = {
        "base_model": card.backbone.name,
        "library_name": "transformers" if is_whole else "peft",
        "tags": ["step-level-q-value", "dpo", "full" if is_whole else "lora", "agent"],
    }
    alone = (
        'the model alone loads with `AutoModelForCausalLM.from_pretrained("<this folder>/model")`'
        if is_whole
        else "the\nadapter alone loads with "
        '`peft.PeftModel.from_pretrained(base_model, "<this folder>/adapter")`'
    )
    return f"""---
{yaml.safe_dump(header, sort_keys=False)}---

# Step-level Q-value model

Gives each candidate action of an LLM agent a value, `Q(u, tau, a)`, so that the agent executes
the best of its candidates. Method: Zhai et al., "Enhancing Decision-Making for LLM Agents via
Step-Level Q-Value Models", AAAI 2025.

- Base model: `{card.backbone.name}` (revision: {card.backbone.revision or "newest"})
- Q-head: `{card.head}`, {dict(card.head_settings)}
- Context limit: {card.max_length} tokens
- Trained on {num_tasks} tasks (listed in `{CARD_FILE}`; do not evaluate on them)

Use it by `model.checkpoint: <this folder>` in a config of `python -m lit_qagent predict`; {alone}.

## Metrics

| metric | value |
|---|---|
{metrics}

## Lineage

```yaml
{details}```
"""

"""What a `.ckpt` holds: one file, or the folder that some strategies write in its place."""

import tempfile
from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_qagent.models.q_heads import QHead

_SHARDS = "meta.pt"  # beside the shards Lightning keeps there what is no weight


class Saved(NamedTuple):
    """The trained weights by their names in the module, and what was measured with them."""

    weights: dict[str, Tensor]
    metrics: dict[str, float]


def plain_arguments(**arguments: object) -> dict[str, Any]:
    """Return a module's arguments as plain values, so that a `.ckpt` loads without pickles."""
    plain = {name: _plain(value) for name, value in arguments.items()}
    return plain | {"_instantiator": "lightning.pytorch.cli.instantiate_module"}


def _plain(value: object) -> object:
    if isinstance(value, QHead):
        kind = type(value)
        return {
            "class_path": f"{kind.__module__}.{kind.__qualname__}",
            "init_args": value.settings(),
        }
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value) if isinstance(value, Path) else value


def read_saved(path: Path, names: Iterable[str]) -> Saved:
    """Read weights into main memory.

    Args:
        path: A file, a folder of shards (FSDP2 with ``save_distributed_checkpoint``), or one of
            DeepSpeed, which needs that package.
        names: Of the trained weights; DeepSpeed keeps the frozen ones too.
    """
    found = _of_folder(path) if path.is_dir() else _of_file(path)
    return Saved({name: found["state_dict"][name] for name in names}, found["metrics"])


def _of_file(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return found


def _of_folder(path: Path) -> dict[str, Any]:
    """Make one file of a folder, as both converters insist on writing one."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".whole-") as scratch:
        file = Path(scratch) / path.name
        if (path / _SHARDS).is_file():
            from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

            dcp_to_torch_save(path, file)
            return _of_file(file) | _of_file(path / _SHARDS)
        from lightning.pytorch.utilities import deepspeed

        return deepspeed.convert_zero_checkpoint_to_fp32_state_dict(path, file)

"""``fit``, ``validate``, ``test`` and ``predict``: LightningCLI around `StepDPO`; parses and wires.

The given configuration wins over what a checkpoint was trained with, and differences are said.
"""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_warn

from lit_qagent.command_line import Suggestions, run_main
from lit_qagent.core.errors import CheckpointError
from lit_qagent.evaluation.callbacks import WriteReport
from lit_qagent.training.callbacks import SaveConfig
from lit_qagent.training.module import StepDPO
from lit_qagent.training.sets import CompareSets

# Lightning's tips and device lines are noise in every run; warnings stay.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
# bitsandbytes misses an optional kernel on every CPU, whether or not anything is in 4 bits.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
# The dispatcher hands the arguments on, so they are given twice, and alike.
warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
# Raised inside Lightning, at its own use of torch.
warnings.filterwarnings("ignore", message=".isinstance.treespec, LeafSpec.. is deprecated")

# Of Lightning, which looks for the file itself; a registry's has a name and version behind it.
_KEYWORDS = ("last", "best", "hpc", "registry")


class QAgentParser(Suggestions, LightningArgumentParser):
    """Lightning's parser with short messages that name the nearest right option."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (handed on as they are)
        # For the parsers of subcommands and classes too, which are made without our settings.
        kwargs["allow_abbrev"] = False
        super().__init__(*args, **kwargs)


class QAgentCLI(LightningCLI):
    """LightningCLI for `StepDPO` with any data module."""

    def _parse_ckpt_path(self) -> None:
        """Say where a checkpoint was trained with other settings, instead of taking them over."""
        subcommand = self.config.get("subcommand")
        path = self.config[subcommand].get("ckpt_path") if subcommand else None
        if not path or _is_found_by_lightning(str(path)):
            return
        saved = _read_ckpt(Path(path))
        now = self.config[subcommand]["model"]
        given: dict[str, Any] = now.as_dict() if hasattr(now, "as_dict") else dict(now)
        differing = {
            name: f"{value!r} there, {given[name]!r} now"
            for name, value in saved.get("hyper_parameters", {}).items()
            if not name.startswith("_") and name in given and given[name] != value
        }
        if differing:
            rank_zero_warn(
                f"checkpoint {path} was trained with other settings; those given now are used: "
                f"{differing}"
            )


def _is_found_by_lightning(path: str) -> bool:
    return path.split(":")[0] in _KEYWORDS or "://" in path or Path(path).is_dir()


def _read_ckpt(path: Path) -> dict[str, Any]:
    """Return what a `.ckpt` file holds; its weights are read where they are used.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(
            f"ckpt_path: there is no file {str(path)!r}; give a .ckpt of training, or leave "
            "ckpt_path out to start anew"
        )
    try:
        saved: object = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except (RuntimeError, UnpicklingError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(
            f"ckpt_path: {str(path)!r} is damaged or no .ckpt of training ({reason}); give an "
            "earlier .ckpt, or leave ckpt_path out to start anew"
        ) from error
    return saved if isinstance(saved, dict) else {}


def build(args: ArgsType = None, *, run: bool = True) -> QAgentCLI:
    """Parse the arguments, build the parts and run the command.

    Args:
        args: Arguments without the program's name; None takes the command line's.
        run: False only builds (then there is no subcommand among the arguments).
    """
    return QAgentCLI(
        StepDPO,
        None,
        args=args,
        run=run,
        parser_class=QAgentParser,
        parser_kwargs={"prog": "python -m lit_qagent"},
        save_config_callback=SaveConfig,
        save_config_kwargs={"save_to_log_dir": False},
        seed_everything_default=42,
        auto_configure_optimizers=False,
        trainer_defaults={"callbacks": [WriteReport(), CompareSets()]},
    )


def main(argv: Sequence[str]) -> int:
    """Run one command line; returns its exit status."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    resume = ["--ckpt_path", "last"] if list(argv[:1]) == ["fit"] else []
    return run_main(_run, argv, "lit_qagent", resume)


def _run(argv: Sequence[str]) -> int:
    try:
        build(list(argv))
    except SystemExit as error:
        # Lightning turns Ctrl-C into exit(1) once it has cleaned up.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

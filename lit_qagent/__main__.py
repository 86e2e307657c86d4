"""The entry point: finds the command, imports only what that command needs."""

import difflib
import sys
from collections.abc import Callable, Sequence

from lit_qagent import __version__

_LIGHTNING = {
    "fit": "train a Q-value model on preference pairs by step-level DPO",
    "validate": "score the validation pairs with a Q-value model",
    "test": "score the test pairs with a Q-value model",
    "predict": "play held-out tasks with several agents, with and without the Q-value model",
}
_OWN = {
    "quickstart": "the whole method on a small world: collect, pairs, fit, predict",
    "improve": "search, train, keep the Q-model only if it acts better; round after round",
    "compare": "put two finished predict runs beside each other, task by task",
    "doctor": "say what is missing on this machine, and how to get it",
}
_ELSEWHERE = {
    "collect": "python -m data_collection collect",
    "pairs": "python -m data_collection pairs",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    first = args[0] if args else "--help"
    if first in {"-h", "--help", "help"}:
        sys.stdout.write(_usage())
        return 0
    if first == "--version":
        sys.stdout.write(f"lit_qagent {__version__}\n")
        return 0
    if first in _OWN:
        return _own_command(first)(args[1:])
    if first in _LIGHTNING or first.startswith("-"):
        from lit_qagent.cli import main as lightning_main

        return lightning_main(args)
    return _refuse(first)


def _usage() -> str:
    rows = "".join(f"  {name:<12}{text}\n" for name, text in (_OWN | _LIGHTNING).items())
    return (
        "usage: python -m lit_qagent COMMAND [options]\n\n"
        "Step-level Q-value models that make LLM agents decide better.\n\n"
        f"{rows}\n"
        "python -m lit_qagent COMMAND --help explains the options of a command.\n"
        "Trees and preference pairs are made by python -m data_collection {collect,pairs,import}.\n"
    )


def _own_command(name: str) -> Callable[[Sequence[str]], int]:
    if name == "doctor":
        from lit_qagent.doctor import main as command
    elif name == "improve":
        from lit_qagent.improve.command import main as command
    elif name == "compare":
        from lit_qagent.compare import main as command
    else:
        from lit_qagent.quickstart import main as command
    return command


def _refuse(name: str) -> int:
    known = [*_OWN, *_LIGHTNING, *_ELSEWHERE]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = ""
    if close:
        hint = f"; did you mean {_ELSEWHERE.get(close[0], close[0])!r}?"
    sys.stderr.write(
        f"lit_qagent: error: no command {name!r}{hint}\nsee: python -m lit_qagent --help\n"
    )
    return 2


if __name__ == "__main__":
    sys.exit(main())

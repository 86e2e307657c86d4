"""``improve``: the self-improvement loop as one command."""

import subprocess
import sys
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lit_qagent.command_line import Parser, run_main
from lit_qagent.improve.cost import cost_text
from lit_qagent.improve.loop import run_loop
from lit_qagent.improve.record import RECORD_FILE, Record
from lit_qagent.improve.spec import Improve
from lit_qagent.stages import exit_code

MODULE = "lit_qagent improve"
_PIPE_COLUMNS = 120


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is left of a loop; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    return run_main(_run, given, MODULE)


def make_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(
        prog=f"python -m {MODULE}",
        description="Search, train, and keep the new Q-model only if validation tasks show that "
        "it acts better; round after round, within a budget. It takes a config for each of "
        "collect, pairs, fit and predict, as they run by hand, and sets in them what a round "
        "decides: folders, tasks, checkpoints, the search. The same command goes on where it "
        "stopped. See configs/improve_quickstart.yaml and docs/improve.md.",
    )
    parser.add_argument("--config", action="config", help="YAML file with these options.")
    parser.add_class_arguments(Improve)
    return parser


def _run(argv: Sequence[str]) -> int:
    parser = make_parser()
    values = vars(parser.instantiate(parser.parse_args(list(argv))))
    spec = Improve(**{name: value for name, value in values.items() if name != "config"})
    try:
        record = run_loop(spec, say=_say)
    except subprocess.CalledProcessError as error:
        sys.stderr.write(
            f"\nthe loop stopped in: python {' '.join(error.cmd)}\n"
            "everything finished is kept; the same command goes on\n"
        )
        return exit_code(error)
    _show(record)
    return 0


def _show(record: Record) -> None:
    """Print the rounds and what came of them."""
    console = Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
    table = Table(title="Rounds", box=SIMPLE_HEAD, title_justify="left")
    for name in ("round", "guided by", "pairs", "reward", "difference [95 %]", "decision"):
        table.add_column(name)
    for row in record.rounds:
        guide = "-" if row["guided_by"] is None else f"round {row['guided_by']}"
        table.add_row(str(row["round"]), guide, str(row["pairs"]), *_cells(row))
    console.print(table)
    accepted = record.checkpoint or "none; what acted before is better or as good"
    for line in (
        f"{record.status}: {record.why}",
        f"Accepted Q-model: {accepted}",
        f"Spent: {cost_text(record.spent)}",
        f"The record: {record.folder / RECORD_FILE}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _cells(row: dict[str, object]) -> list[str]:
    found = row["difference"]
    assert isinstance(found, dict)
    shown = "-"
    if found["low"] is not None:
        shown = f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
    reward = row["reward"]
    return [
        f"{reward:.3f}" if isinstance(reward, float) else "-",
        shown.replace("[", "\\["),
        "accepted" if row["accepted"] else "refused",
    ]


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()

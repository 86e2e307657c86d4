"""``compare``: puts two finished predict runs beside each other, task by task."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lit_qagent.command_line import Parser, run_main
from lit_qagent.core import manifest
from lit_qagent.evaluation.comparison import (
    compare_runs,
    comparison_table,
    comparison_text,
    pair_agents,
    read_run,
)

_PIPE_COLUMNS = 140


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two runs; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    return run_main(_run, given, "lit_qagent compare")


def _run(argv: Sequence[str]) -> int:
    options = _parser().parse_args(list(argv))
    a, b = read_run(Path(options.run_a)), read_run(Path(options.run_b))
    result = compare_runs(a, b, pair_agents(a, b, options.agent_a, options.agent_b))
    console = Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
    console.print(f"A: {a.folder}\nB: {b.folder}", markup=False, highlight=False, soft_wrap=True)
    head, *rows = comparison_table(result)
    table = Table(title="B minus A, 95 % intervals over tasks", box=SIMPLE_HEAD)
    for position, name in enumerate(head):
        table.add_column(name, no_wrap=position < 5)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if options.output:
        folder = Path(options.output)
        folder.mkdir(parents=True, exist_ok=True)
        manifest.write_json(folder / "comparison.json", result)
        (folder / "comparison.md").write_text(comparison_text(result), encoding="utf-8")
        console.print(f"Written: {folder / 'comparison.md'}", markup=False, soft_wrap=True)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lit_qagent compare",
        description="Compare two finished predict runs of the same world and tasks: B minus A.",
    )
    parser.add_argument("run_a", type=str, help="results folder of one run")
    parser.add_argument("run_b", type=str, help="results folder of the other run")
    parser.add_argument(
        "--agent_a", type=str, help="agent of run A; all agents of equal name if none is named"
    )
    parser.add_argument("--agent_b", type=str, help="agent of run B")
    parser.add_argument("--output", type=str, help="folder for comparison.json and comparison.md")
    return parser

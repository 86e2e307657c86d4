import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lit_qagent.core.errors import StoreError
from lit_qagent.evaluation.sessions import Session, Spent, read_sessions
from tests.toy_players import make_episode

OLD_ROW = {"seconds": 20.0, "peak_rss_gb": 0.5, "episodes": 3, "failures": 0, "cut_bytes": 0}


def session(folder: Path, *readings: float, rank: int = 0) -> Session:
    """Return a session whose clock shows these readings, one a look."""
    clock: Iterator[float] = iter(readings)
    name = f"sessions.rank{rank}.jsonl" if rank else "sessions.jsonl"
    return Session(folder / name, cut_bytes=0, clock=lambda: next(clock))


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "sessions.jsonl").read_text().splitlines()]


def test_a_session_that_never_closes_is_known_up_to_its_last_episode(tmp_path: Path) -> None:
    going = session(tmp_path, 100.0, 100.0, 130.0, 145.0)

    going.__enter__()
    assert read_sessions(tmp_path)[::2] == (0.0, 1)
    going.count(make_episode("plain", "a"))
    going.count(make_episode("plain", "b", steps=[], failure="PolicyFailure: gone"))

    assert read_sessions(tmp_path)[::2] == (45.0, 1)
    assert (rows(tmp_path)[-1]["episodes"], rows(tmp_path)[-1]["failures"]) == (2, 1)


def test_of_a_session_the_last_row_counts_and_sessions_add_up(tmp_path: Path) -> None:
    with session(tmp_path, 100.0, 100.0, 130.0, 131.0) as first:
        first.count(make_episode("plain", "a"))
    with session(tmp_path, 7.0, 7.0, 9.0):
        pass

    assert [row["finished"] for row in rows(tmp_path)] == [False, False, True, False, True]
    assert read_sessions(tmp_path)[::2] == (31.0 + 2.0, 0)


def test_an_error_leaves_a_session_marked_with_its_whole_time(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), session(tmp_path, 1.0, 1.0, 6.0):
        raise KeyboardInterrupt

    assert read_sessions(tmp_path)[::2] == (5.0, 1)


def test_processes_beside_each_other_count_once_in_time_but_each_if_cut(tmp_path: Path) -> None:
    for rank, end in enumerate([12.0, 15.0]):
        going = session(tmp_path, 0.0, 0.0, end, rank=rank)
        going.__enter__()
        going.count(make_episode("plain", str(rank)))

    assert read_sessions(tmp_path)[::2] == (15.0, 2)


def test_rows_of_earlier_versions_are_sessions_of_their_own(tmp_path: Path) -> None:
    line = json.dumps(OLD_ROW) + "\n"
    (tmp_path / "sessions.jsonl").write_text(line * 2)
    assert read_sessions(tmp_path) == Spent(seconds=40.0, peak_rss_gb=0.5, cut_sessions=0)

    with session(tmp_path, 0.0, 0.0, 2.0):
        pass

    assert read_sessions(tmp_path)[::2] == (42.0, 0)


def test_a_folder_without_sessions_has_spent_nothing_known(tmp_path: Path) -> None:
    assert read_sessions(tmp_path) == Spent(seconds=0.0, peak_rss_gb=0.0, cut_sessions=0)


def test_a_torn_last_row_is_left_out_and_cut_by_the_next_session(tmp_path: Path) -> None:
    (tmp_path / "sessions.jsonl").write_text(json.dumps(OLD_ROW) + '\n{"began": 1.0, "sec')
    assert read_sessions(tmp_path)[::2] == (20.0, 0)

    with session(tmp_path, 0.0, 0.0, 2.0):
        pass

    assert read_sessions(tmp_path)[::2] == (22.0, 0)
    assert len(rows(tmp_path)) == 3


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"seconds": 1.0}'])
def test_a_corrupt_row_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "sessions.jsonl").write_text(f"{json.dumps(OLD_ROW)}\n{line}\n")

    with pytest.raises(StoreError, match=r"sessions.jsonl', line 2 is no row of a session"):
        read_sessions(tmp_path)


def test_a_process_that_is_killed_leaves_its_rows(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from lit_qagent.evaluation.sessions import Session
from tests.toy_players import make_episode

with Session(Path(sys.argv[1]) / "sessions.jsonl", cut_bytes=0) as session:
    session.count(make_episode("plain", "a"))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)

    assert killed.returncode == -signal.SIGKILL
    assert [row["episodes"] for row in rows(tmp_path)] == [0, 1]
    spent = read_sessions(tmp_path)
    assert spent.seconds > 0
    assert spent.peak_rss_gb > 0.01
    assert spent.cut_sessions == 1

import json
from pathlib import Path

import pytest

from lit_qagent.__main__ import main
from lit_qagent.evaluation.shard import EpisodeShard
from tests.toy_players import WordPolicy, WordScorer, make_evaluation


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    """Two runs on the same tasks, the second with one more word to mistake."""
    folders = tmp_path / "a", tmp_path / "b"
    for folder, temperament in zip(folders, ("calm", "wild"), strict=True):
        evaluation = make_evaluation(folder, policy=WordPolicy(temperament))
        EpisodeShard(evaluation).play(WordScorer(), {})
    return str(folders[0]), str(folders[1])


def test_two_runs_are_compared_shown_and_written(
    runs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "comparison"

    assert main(["compare", *runs, "--output", str(output)]) == 0

    shown = capsys.readouterr().out
    assert "random_of_n - random_of_n" in shown
    assert str(output) in shown
    result = json.loads((output / "comparison.json").read_text())
    row = result["agents"]["q_guided - q_guided"]
    assert (row["tasks"], row["mean"]) == (4, 0.0)  # equal seeds, equal draws
    assert result["settings_that_differ"] == ['policy.temperament: "calm" there, "wild" now']
    assert "# B `" in (output / "comparison.md").read_text()


def test_two_agents_of_one_run_may_be_compared(
    runs: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    a, _ = runs

    assert main(["compare", a, a, "--agent_a", "plain", "--agent_b", "q_guided"]) == 0

    assert "q_guided - plain" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--agent_a", "nobody"], "has no agent 'nobody'; there are"),
        (["--agent", "plain"], "--agent"),
    ],
)
def test_what_is_wrong_is_said(
    runs: tuple[str, str],
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        status = main(["compare", *runs, *arguments])
    except SystemExit as error:
        status = int(error.code or 0)

    assert status != 0
    assert message in capsys.readouterr().err


def test_a_folder_that_no_run_made_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(tmp_path), str(tmp_path)]) == 1

    assert "has no manifest.json; name a folder that a run has made" in capsys.readouterr().err

import asyncio
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lit_qagent.agents.prompts import PromptSpec
from lit_qagent.core import manifest
from lit_qagent.core.errors import ConfigError, OverlapError, StoreError
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling
from lit_qagent.evaluation.cost import Prices
from lit_qagent.evaluation.episodes import EpisodeLog, read_episodes
from lit_qagent.evaluation.report import write_report
from lit_qagent.evaluation.shard import EpisodeShard
from lit_qagent.evaluation.specs import Evaluation
from tests.toy_players import WordPolicy, WordScorer, make_evaluation

LINEAGE = {"task_ids": ["seen"], "base_model": "tiny"}


class InterruptedPolicy(WordPolicy):
    """A user who presses Ctrl-C at the n-th request."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        if len(self.calls) == self.at:
            raise KeyboardInterrupt
        return await super().propose(messages, n, sampling, constraint=constraint, seed=seed)


class HeldPolicy(WordPolicy):
    """Gives its first answer when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked, self.may_answer = threading.Event(), threading.Event()

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        self.is_asked.set()
        while not self.may_answer.is_set():
            await asyncio.sleep(0.01)
        return await super().propose(messages, n, sampling, constraint=constraint, seed=seed)


def play(evaluation: Evaluation, **share: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    return EpisodeShard(evaluation, **share).play(WordScorer(), LINEAGE)


def last_session(folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = json.loads((folder / "sessions.jsonl").read_text().splitlines()[-1])
    return row


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_playing_leaves_a_line_per_episode_a_manifest_and_the_cost(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "results"

    rows = play(make_evaluation(folder))

    lines = (folder / "trajectories.jsonl").read_text().splitlines()
    assert sorted(map(json.dumps, rows)) == sorted(lines)
    assert len(lines) == 24
    settings = json.loads((folder / "manifest.json").read_text())
    assert settings["q_model"]["trained_tasks"] == 1
    session = last_session(folder)
    assert (session["episodes"], session["failures"], session["cut_bytes"]) == (24, 0, 0)
    assert session["finished"]
    assert session["peak_rss_gb"] > 0.01


def test_finished_episodes_are_not_played_again(tmp_path: Path) -> None:
    first = play(make_evaluation(tmp_path))
    policy = WordPolicy()

    again = play(make_evaluation(tmp_path, policy=policy))

    assert again == first
    assert policy.calls == []


def test_a_killed_run_is_continued_and_ends_as_if_it_had_not_been(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = play(make_evaluation(tmp_path / "whole"))
    play(make_evaluation(tmp_path / "cut"))
    path = tmp_path / "cut" / "trajectories.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:10]) + lines[10][:40])
    capsys.readouterr()

    rows = play(make_evaluation(tmp_path / "cut"))

    assert [{**row, "seconds": 0} for row in rows] == [{**row, "seconds": 0} for row in whole]
    assert path.read_bytes().splitlines()[:10] == [line.rstrip() for line in lines[:10]]
    said = capsys.readouterr().err
    assert "Cut an unfinished last line (40 bytes)" in said
    assert "10 of 24 episodes were played before" in said


def test_ctrl_c_keeps_what_was_finished_and_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        play(make_evaluation(tmp_path, policy=InterruptedPolicy(at=40)))

    kept = len(read_episodes(tmp_path).episodes)
    assert 5 <= kept < 24
    said = capsys.readouterr().err
    assert f"Stopped. {kept} episodes are kept in {tmp_path}; the same command plays" in said
    session = last_session(tmp_path)
    assert (session["episodes"], session["finished"]) == (kept, False)
    assert len(play(make_evaluation(tmp_path))) == 24


def test_a_failed_episode_is_tried_again(tmp_path: Path) -> None:
    word = make_evaluation(tmp_path).held_out_tasks()[0].data["target"][0]

    before = play(make_evaluation(tmp_path, policy=WordPolicy(fails_on=word)))
    after = play(make_evaluation(tmp_path, policy=WordPolicy()))

    assert sum(row["failure"] is not None for row in before) > 0
    assert sum(row["failure"] is not None for row in after) == 0


def test_overlap_is_refused_before_anything_is_played(tmp_path: Path) -> None:
    evaluation = make_evaluation(tmp_path / "new")
    seen = [task.task_id for task in evaluation.held_out_tasks()]

    with pytest.raises(OverlapError, match=f"4 of 4 held-out tasks .*{', '.join(seen)}.*; choose"):
        EpisodeShard(evaluation).play(WordScorer(), {"task_ids": seen})

    assert not (tmp_path / "new").exists()


def test_a_missing_q_model_is_refused_before_anything_is_played(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="need a Q-model"):
        EpisodeShard(make_evaluation(tmp_path / "new")).play(None, {})

    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"policy": WordPolicy(temperament="wild")}, 'policy.temperament: "calm" there, "wild"'),
        ({"tasks": {"seeds": [0]}}, r"tasks.seeds: \[0, 1\] there, \[0\] now"),
        ({"sampling": Sampling(temperature=0.5)}, "sampling.temperature: 1.0 there, 0.5 now"),
    ],
)
def test_a_folder_of_another_configuration_is_refused_and_left_alone(
    tmp_path: Path, changes: dict[str, Any], difference: str
) -> None:
    play(make_evaluation(tmp_path))
    before = snapshot(tmp_path)

    with pytest.raises(StoreError, match=f"other settings:(.|\n)*{difference}"):
        play(make_evaluation(tmp_path, **changes))

    assert snapshot(tmp_path) == before


def test_prices_may_be_given_after_playing(tmp_path: Path) -> None:
    play(make_evaluation(tmp_path))
    policy = WordPolicy()

    prices = {"prices": Prices(prompt=1.0, generated=2.0)}
    play(make_evaluation(tmp_path, policy=policy, play=prices))

    assert policy.calls == []
    assert write_report(tmp_path)["agents"]["plain"]["cost"]["dollars"] > 0


def test_a_folder_of_another_q_model_is_refused(tmp_path: Path) -> None:
    play(make_evaluation(tmp_path))

    with pytest.raises(StoreError, match=r"q_model.lineage_hash: .* there, .* now"):
        EpisodeShard(make_evaluation(tmp_path)).play(WordScorer(), {**LINEAGE, "base_model": "x"})


def test_a_folder_where_nothing_was_played_may_be_used_with_other_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_examples is 9"):
        play(make_evaluation(tmp_path, prompt=PromptSpec(num_examples=9)))

    assert len(play(make_evaluation(tmp_path))) == 24
    assert write_report(tmp_path)["cut_sessions"] == 0  # those of other settings are not of it


def test_two_processes_share_the_tasks_and_write_files_of_their_own(tmp_path: Path) -> None:
    first = play(make_evaluation(tmp_path), rank=0, world_size=2)
    second = play(make_evaluation(tmp_path), rank=1, world_size=2)

    assert len(first) == len(second) == 12
    assert {row["task_id"] for row in first}.isdisjoint(row["task_id"] for row in second)
    assert {row["agent"] for row in second} == {"plain", "random_of_n", "q_guided"}
    assert len(read_episodes(tmp_path).episodes) == 24
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "manifest.json",
        "sessions.jsonl",
        "sessions.rank1.jsonl",
        "trajectories.jsonl",
        "trajectories.rank1.jsonl",
    ]


def test_a_run_that_has_finished_no_episode_yet_keeps_its_folder(tmp_path: Path) -> None:
    policy = HeldPolicy()
    player = threading.Thread(target=play, args=[make_evaluation(tmp_path, policy=policy)])
    player.start()
    try:
        assert policy.is_asked.wait(30)
        before = (tmp_path / "manifest.json").read_bytes()
        assert read_episodes(tmp_path).episodes == {}

        with pytest.raises(StoreError, match="being written by another process"):
            play(make_evaluation(tmp_path, policy=WordPolicy(temperament="wild")))

        assert (tmp_path / "manifest.json").read_bytes() == before
    finally:
        policy.may_answer.set()
        player.join()
    assert len(play(make_evaluation(tmp_path))) == 24


def test_a_folder_that_a_further_process_still_plays_into_is_not_taken_over(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match="num_examples is 9"):
        play(make_evaluation(tmp_path, prompt=PromptSpec(num_examples=9)))
    before = (tmp_path / "manifest.json").read_bytes()

    with (
        EpisodeLog(tmp_path / "trajectories.rank1.jsonl"),
        pytest.raises(StoreError, match=r"rank1.jsonl' is being written by another process"),
    ):
        play(make_evaluation(tmp_path))

    assert (tmp_path / "manifest.json").read_bytes() == before


def test_of_several_processes_the_first_one_claims_the_folder(tmp_path: Path) -> None:
    evaluation = make_evaluation(tmp_path)
    manifest_there: list[bool] = []

    def first_is_done(name: str) -> None:
        manifest_there.append((tmp_path / "manifest.json").exists())

    def play_first(name: str) -> None:
        assert not any(tmp_path.iterdir())
        play(evaluation, rank=0, world_size=2, barrier=first_is_done)

    play(evaluation, rank=1, world_size=2, barrier=play_first)

    assert manifest_there == [True]
    assert len(read_episodes(tmp_path).episodes) == 24


def test_a_folder_of_another_command_is_refused_though_it_has_no_episodes(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    manifest.write_json(path, {"schema_version": 1, "search": {"num_iterations": 30}})
    before = path.read_bytes()

    with pytest.raises(StoreError, match=r"other settings:(.|\n)*search.num_iterations"):
        play(make_evaluation(tmp_path))

    assert path.read_bytes() == before

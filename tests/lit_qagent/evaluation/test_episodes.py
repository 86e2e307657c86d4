import json
from dataclasses import replace
from pathlib import Path

import pytest

from lit_qagent.core.errors import PolicyFailure, StoreError
from lit_qagent.evaluation.episodes import EpisodeKey, EpisodeLog, PlayedEpisode, read_episodes
from tests.toy_players import make_episode


def write(path: Path, *episodes: PlayedEpisode) -> None:
    with EpisodeLog(path) as log:
        for episode in episodes:
            log.append(episode)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    episode = make_episode("plain", "t\u2028é", metrics={"em": 1.0}, reward=0.5)

    write(tmp_path / "trajectories.jsonl", episode)

    assert read_episodes(tmp_path).episodes == {episode.key: episode}
    assert read_episodes(tmp_path).torn_lines == 0
    assert episode.num_invalid == 1


def test_half_letters_of_a_world_or_an_error_do_not_end_the_evaluation(tmp_path: Path) -> None:
    episode = make_episode("plain", "t", first_observation="half \ud83d", failure="a \udfff")

    write(tmp_path / "trajectories.jsonl", episode)

    [read] = read_episodes(tmp_path).episodes.values()
    assert (read.first_observation, read.failure) == ("half \ufffd", "a \ufffd")


def test_the_rollouts_of_an_oracle_are_kept_and_files_without_them_are_read(tmp_path: Path) -> None:
    path = tmp_path / "trajectories.jsonl"
    plain = make_episode("oracle", "t")
    step = replace(plain.steps[1], returns=[[1.0, 0.0]])
    episode = replace(plain, steps=[plain.steps[0], step])
    write(path, episode)

    assert read_episodes(tmp_path).episodes == {episode.key: episode}
    row = json.loads(path.read_text())
    for one in row["steps"]:
        del one["returns"]
    path.write_text(json.dumps(row) + "\n")
    assert read_episodes(tmp_path).episodes == {episode.key: plain}


def test_all_processes_files_are_read(tmp_path: Path) -> None:
    write(tmp_path / "trajectories.jsonl", make_episode("plain", "a"))
    write(tmp_path / "trajectories.rank1.jsonl", make_episode("plain", "b"))

    keys = set(read_episodes(tmp_path).episodes)

    assert keys == {EpisodeKey("plain", "a", 0), EpisodeKey("plain", "b", 0)}


def test_a_torn_last_line_counts_as_not_played_and_is_cut_on_opening(tmp_path: Path) -> None:
    path = tmp_path / "trajectories.jsonl"
    write(path, make_episode("plain", "a"))
    whole = path.read_bytes()
    path.write_bytes(whole + '{"agent": "é'.encode()[:-1])

    contents = read_episodes(tmp_path)
    with EpisodeLog(path) as log:
        assert log.cut_bytes == 12

    assert (len(contents.episodes), contents.torn_lines) == (1, 1)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "line", ['{"agent": "plain"', '{"agent": "plain"}', "[1]", '{"steps": [{}]}', "\xff"]
)
def test_a_corrupt_line_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "trajectories.jsonl"
    write(path, make_episode("plain", "a"))
    with path.open("ab") as file:
        file.write(line.encode("latin-1") + b"\n")

    with pytest.raises(StoreError, match=r"trajectories.jsonl', line 2 is no played episode"):
        read_episodes(tmp_path)


def test_a_later_try_stands_for_a_failed_episode(tmp_path: Path) -> None:
    key = EpisodeKey("plain", "a", 0)
    failed = PlayedEpisode.failed(key, PolicyFailure("no answer"), seconds=2.0)

    write(tmp_path / "trajectories.jsonl", failed, make_episode("plain", "a", reward=1.0))

    assert failed.failure == "PolicyFailure: no answer"
    assert read_episodes(tmp_path).episodes[key].reward == 1.0


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_a_finished_record_wins_in_whatever_file_it_is(tmp_path: Path, order: list[int]) -> None:
    key = EpisodeKey("plain", "a", 0)
    names = ["trajectories.jsonl", "trajectories.rank1.jsonl"]
    first, second = (tmp_path / names[number] for number in order)

    # Two processes played, the endpoint died, and one process played the rest.
    write(first, PlayedEpisode.failed(key, PolicyFailure("no answer"), seconds=2.0))
    write(second, make_episode("plain", "a", reward=1.0))

    assert read_episodes(tmp_path).episodes[key].reward == 1.0


def test_of_failed_records_the_last_one_stands(tmp_path: Path) -> None:
    key = EpisodeKey("plain", "a", 0)
    tries = [PlayedEpisode.failed(key, PolicyFailure(text), seconds=2.0) for text in ("one", "two")]

    write(tmp_path / "trajectories.jsonl", *tries)

    assert read_episodes(tmp_path).episodes[key].failure == "PolicyFailure: two"


@pytest.mark.parametrize("other", ["trajectories.jsonl", "trajectories.rank1.jsonl"])
def test_an_episode_finished_twice_is_refused(tmp_path: Path, other: str) -> None:
    key = EpisodeKey("plain", "a", 0)
    failed = PlayedEpisode.failed(key, PolicyFailure("no answer"), seconds=2.0)
    write(tmp_path / "trajectories.jsonl", make_episode("plain", "a"), failed)
    write(tmp_path / other, make_episode("plain", "a"))

    with pytest.raises(StoreError, match="holds an episode that was finished before"):
        read_episodes(tmp_path)


def test_two_writers_of_one_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "trajectories.jsonl"

    with EpisodeLog(path), pytest.raises(StoreError, match="being written by another process"):
        EpisodeLog(path)

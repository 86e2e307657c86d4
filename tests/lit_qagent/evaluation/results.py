"""Results folders made by hand, for the tests of what is read from one."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lit_qagent.core import manifest
from lit_qagent.evaluation.episodes import EpisodeLog, PlayedEpisode
from lit_qagent.evaluation.specs import Evaluation
from tests.toy_players import make_episode, make_evaluation, with_rewards

EVIL = "<script>alert('x')</script> & | `"


def write_results(
    evaluation: Evaluation,
    episodes: Iterable[PlayedEpisode],
    lineage: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Write the folder that the evaluation would leave had it played these episodes."""
    folder = evaluation.play.output
    manifest.claim(folder / "manifest.json", evaluation.settings(lineage), "Results folder")
    with EpisodeLog(folder / "trajectories.jsonl") as log:
        for episode in episodes:
            log.append(episode)
    return folder


def make_folder(
    folder: Path,
    episodes: Iterable[PlayedEpisode],
    play: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Write a results folder of three agents that were trained on other tasks."""
    evaluation = make_evaluation(folder, tasks={"num_tasks": 2}, play=play)
    return write_results(evaluation, episodes, {"task_ids": ["x", "y", "z"], "base_model": EVIL})


def hand_made() -> list[PlayedEpisode]:
    one_step = make_episode("", "").steps[:1]
    failed = make_episode("plain", "b", 1, steps=[], failure="PolicyFailure: no answer")
    return [
        *with_rewards("plain", {"a": [0.0, 0.5], "b": [0.0]}, prompt_tokens=40, requests=1),
        failed,
        *with_rewards("random_of_n", {"a": [1.0, 1.0], "b": [1.0, 1.0]}, metrics={"em": 1.0}),
        *with_rewards("q_guided", {"a": [1.0, 1.0], "b": [0.5]}, first_observation=EVIL),
        make_episode("q_guided", "b", 1, reward=1.0, success=True, steps=one_step),
    ]

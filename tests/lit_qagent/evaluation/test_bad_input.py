"""What may be wrong with an evaluation's parts, from the Q-model to the endpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lit_qagent.agents.prompts import PROMPT_VERSION
from lit_qagent.agents.selection import FirstSelector, MostLikelySelector
from lit_qagent.core.errors import CheckpointError, ConfigError, ContextOverflow, PolicyFailure
from lit_qagent.core.records import Constraint, History, Message, Proposal, Sampling
from lit_qagent.evaluation.episodes import PlayedEpisode, read_episodes
from lit_qagent.evaluation.lineage import check_prompt, report_other_world
from lit_qagent.evaluation.play import DEAD_AFTER
from lit_qagent.evaluation.report import write_report
from lit_qagent.evaluation.shard import EpisodeShard
from lit_qagent.evaluation.specs import AgentSpec, Evaluation
from lit_qagent.policies.openai import OpenAIPolicy
from lit_qagent.policies.scripted import ScriptedPolicy
from tests.fault_server import Answer, completion, fault_server
from tests.toy_players import WordPolicy, WordScorer, make_evaluation

ONE_AGENT = {"q_guided": AgentSpec(selector=FirstSelector())}


class ShortPolicy(WordPolicy):
    """Has room for so many messages in its context."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        if len(messages) > self.room:
            raise ContextOverflow(f"{len(messages)} messages")
        return await super().propose(messages, n, sampling, constraint=constraint, seed=seed)


class ShortScorer(WordScorer):
    """Cannot score anything after the first step."""

    async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
        if history.num_steps:
            raise ContextOverflow("head and action need 9000 tokens")
        return await super().score(history, candidates)


def play(evaluation: Evaluation, scorer: WordScorer | None = None) -> list[PlayedEpisode]:
    rows = EpisodeShard(evaluation).play(scorer or WordScorer(), {})
    return [PlayedEpisode.from_dict(row) for row in rows]


@pytest.mark.parametrize(
    ("trained", "message"),
    [
        ({"think": True}, "prompt.think True in training, False now"),
        ({"num_examples": 2}, "prompt.num_examples 2 in training, 0 now"),
        ({"version": "0"}, f"prompt.version '0' in training, '{PROMPT_VERSION}' now"),
    ],
)
def test_a_q_model_of_other_prompts_is_refused_before_anything_is_played(
    tmp_path: Path, trained: dict[str, Any], message: str
) -> None:
    evaluation = make_evaluation(tmp_path / "new")
    as_now = {"think": False, "num_examples": 0, "version": PROMPT_VERSION, "constrain": True}

    with pytest.raises(CheckpointError, match=f"{message}; set data.prompt as in training"):
        EpisodeShard(evaluation).play(WordScorer(), {"prompt": as_now | trained})

    assert not (tmp_path / "new").exists()
    check_prompt(evaluation.prompt, {"prompt": as_now})
    check_prompt(evaluation.prompt, {})


def test_a_q_model_of_another_world_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluation = make_evaluation(tmp_path)
    now = evaluation.environment.settings()

    EpisodeShard(evaluation).play(WordScorer(), {"environment": now})
    assert "another world" not in caplog.text
    EpisodeShard(make_evaluation(tmp_path / "other")).play(
        WordScorer(), {"environment": {**now, "max_steps": 99, "small": {"page_size": 5}}}
    )

    assert f"max_steps is {now['max_steps']}, in training it was 99" in caplog.text
    assert 'small is null, in training it was {"page_size": 5}' in caplog.text


def test_of_the_worlds_that_a_q_model_was_trained_on_the_nearest_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = make_evaluation(tmp_path).environment.settings()
    near, far = {**now, "max_steps": 99}, {"name": "elsewhere"}

    def mixed(*worlds: dict[str, Any]) -> dict[str, Any]:
        return {"environment": {"name": "mixture", "of": list(worlds)}}

    report_other_world(now, mixed(far, now, near))
    assert "another world" not in caplog.text
    report_other_world(now, mixed(far, near))

    assert "max_steps is" in caplog.text
    assert "name is" not in caplog.text


def test_an_endpoint_that_dies_leaves_its_episodes_and_the_rest_is_played_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    good = completion("pick[red]")
    answers = [good] * 12 + [Answer(status=0)]
    with fault_server(answers) as server:

        def evaluation() -> Evaluation:
            policy = OpenAIPolicy("a-model", base_url=server.base_url, max_retries=0)
            return make_evaluation(
                tmp_path,
                policy=policy,
                agents=ONE_AGENT,
                tasks={"num_tasks": 8, "seeds": [0]},
                play={"concurrency": 1},
            )

        before = play(evaluation())
        kept = (tmp_path / "trajectories.jsonl").read_bytes().splitlines()
        answers[:] = [good]
        after = play(evaluation())

    failed = [episode for episode in before if episode.failure]
    assert 0 < len(failed) < len(before) == 8
    assert all("PolicyFailure" in (episode.failure or "") for episode in failed)
    # Five steps an episode: twelve answers are two episodes and two steps of the third.
    assert [len(episode.steps) for episode in failed] == [2, 0, 0, 0, 0, 0]
    assert [episode.requests for episode in failed] == [2, 0, 0, 0, 0, 0]
    assert [episode for episode in after if episode.failure] == []
    played = (tmp_path / "trajectories.jsonl").read_bytes().splitlines()
    assert played[: len(kept)] == kept
    assert len(played) == len(kept) + len(failed)
    assert write_report(tmp_path)["episodes"]["finished"] == 8


def test_a_key_that_is_refused_in_mid_run_stops_it_and_the_rest_is_played_with_a_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    good = completion("pick[red]")
    answers = [good] * 12 + [Answer(status=401, body={"error": {"message": "bad key"}})]
    with fault_server(answers) as server:

        def evaluation() -> Evaluation:
            policy = OpenAIPolicy("a-model", base_url=server.base_url, max_retries=0)
            return make_evaluation(
                tmp_path,
                policy=policy,
                agents=ONE_AGENT,
                tasks={"num_tasks": 16, "seeds": [0, 1, 2]},
                play={"concurrency": 1},
            )

        with pytest.raises(PolicyFailure, match=r"20 episodes in a row .* refused the key .* same"):
            play(evaluation())
        kept = read_episodes(tmp_path).episodes.values()
        asked = len(server.requests)
        answers[:] = [good]
        after = play(evaluation())

    # Five steps an episode: twelve answers are two episodes and two steps of the third.
    assert [episode.failure is None for episode in kept] == [True] * 2 + [False] * DEAD_AFTER
    assert asked == 12 + DEAD_AFTER
    assert [episode.failure for episode in after] == [None] * 48
    assert len(server.requests) == asked + 46 * 5


def test_a_policy_that_is_dead_ends_the_run_instead_of_failing_every_episode(
    tmp_path: Path,
) -> None:
    tasks = {"num_tasks": 16, "seeds": [0, 1, 2]}
    evaluation = make_evaluation(
        tmp_path, policy=WordPolicy(fails_on="Pick"), agents=ONE_AGENT, tasks=tasks
    )

    with pytest.raises(PolicyFailure, match=r"20 episodes in a row got no answer .* same command"):
        play(evaluation)

    assert DEAD_AFTER <= len(read_episodes(tmp_path).episodes) < 48
    again = play(make_evaluation(tmp_path, agents=ONE_AGENT, tasks=tasks))
    assert [episode.failure for episode in again] == [None] * 48


def test_a_policy_without_one_valid_action_plays_to_the_step_limit_and_is_counted(
    tmp_path: Path,
) -> None:
    policy = ScriptedPolicy(script=lambda messages, choices, rng: "I would rather not.")

    episodes = play(make_evaluation(tmp_path, policy=policy))

    limit = make_evaluation(tmp_path).environment.max_steps
    assert {len(episode.steps) for episode in episodes} == {limit}
    assert {episode.num_invalid for episode in episodes} == {limit}
    assert all(episode.truncated for episode in episodes)
    report = write_report(tmp_path)
    assert report["agents"]["plain"]["outcomes"]["never acted validly"] == 8
    assert report["agents"]["plain"]["invalid_rate"] == 1.0
    assert "never acted validly" in (tmp_path / "report.html").read_text()


def test_a_context_that_overflows_in_mid_episode_drops_the_oldest_steps_and_counts_them(
    tmp_path: Path,
) -> None:
    # Head of two messages and two per step: room for one step, so the third decision drops one.
    episodes = play(make_evaluation(tmp_path, policy=ShortPolicy(room=4)))

    assert [episode.failure for episode in episodes] == [None] * 24
    assert {episode.dropped_steps for episode in episodes} == {1}
    assert write_report(tmp_path)["agents"]["plain"]["dropped_steps"] == 8


def test_a_context_without_room_for_the_task_fails_the_episode_and_is_counted(
    tmp_path: Path,
) -> None:
    episodes = play(make_evaluation(tmp_path, policy=ShortPolicy(room=1)))

    assert {episode.failure for episode in episodes} == {"ContextOverflow: 2 messages"}
    report = write_report(tmp_path)
    assert report["agents"]["plain"]["outcomes"]["context overflow"] == 8
    assert report["episodes"]["failed"] == 24
    assert "ContextOverflow: 2 messages" in (tmp_path / "report.html").read_text()


def test_a_q_model_whose_context_overflows_fails_its_own_episodes_only(tmp_path: Path) -> None:
    episodes = play(make_evaluation(tmp_path), ShortScorer())

    failed = {episode.agent for episode in episodes if episode.failure}
    assert failed == {"q_guided"}
    cut = [episode for episode in episodes if episode.failure]
    # The second decision was asked and paid for before it could not be scored: four candidates of
    # three tokens each time.
    assert {(len(e.steps), e.requests, e.generated_tokens) for e in cut} == {(1, 2, 24)}
    outcomes = write_report(tmp_path)["agents"]["q_guided"]["outcomes"]
    assert outcomes["context overflow"] == 8


def test_a_selector_that_needs_log_probabilities_ends_the_run_with_its_message(
    tmp_path: Path,
) -> None:
    agents = {"q_guided": AgentSpec(selector=MostLikelySelector(), num_candidates=2)}

    with pytest.raises(ConfigError, match="this policy reports none"):
        play(make_evaluation(tmp_path, agents=agents))

import asyncio
import signal
import threading
from pathlib import Path

import pytest

from lit_qagent.agents.selection import (
    AdaptiveQSelector,
    FirstSelector,
    MajoritySelector,
    OracleSelector,
    QSelector,
    RandomSelector,
    Selector,
)
from lit_qagent.agents.trials import BestOfTrials
from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import Step
from lit_qagent.environments.base import Outcome
from lit_qagent.environments.toy import ToyWorld
from lit_qagent.evaluation.episodes import PlayedEpisode
from lit_qagent.evaluation.play import plan_episodes, play_episodes, run_to_end
from lit_qagent.evaluation.specs import AgentSpec, Evaluation
from tests.toy_players import WordPolicy, WordScorer, make_evaluation


class CountingWorld(ToyWorld):
    """ToyWorld whose forks count their steps together."""

    num_steps = 0

    def step(self, action: str) -> Step:
        CountingWorld.num_steps += self.task.split == "test"  # the world also plays its example
        return super().step(action)


def play(evaluation: Evaluation) -> list[PlayedEpisode]:
    episodes: list[PlayedEpisode] = []
    agents = evaluation.build_agents(WordScorer())
    planned = plan_episodes(list(agents), evaluation.held_out_tasks(), evaluation.tasks.seeds)
    run_to_end(
        play_episodes(
            planned,
            agents,
            evaluation.environment,
            concurrency=evaluation.play.concurrency,
            on_end=episodes.append,
            trials=evaluation.trials,
        )
    )
    return episodes


def test_agents_alternate_in_the_plan(tmp_path: Path) -> None:
    one, two = make_evaluation(tmp_path).held_out_tasks()[:2]

    planned = plan_episodes(["a", "b"], [one, two], [5, 6])

    assert [(p.agent, p.task, p.seed) for p in planned[:4]] == [
        ("a", one, 5), ("b", one, 5), ("a", two, 5), ("b", two, 5)
    ]  # fmt: skip
    assert len(planned) == 8


def test_every_episode_is_played_once(tmp_path: Path) -> None:
    episodes = play(make_evaluation(tmp_path))

    assert len({episode.key for episode in episodes}) == len(episodes) == 3 * 4 * 2


def test_one_environment_step_per_decision_whatever_the_number_of_candidates(
    tmp_path: Path,
) -> None:
    CountingWorld.num_steps = 0
    policy = WordPolicy()
    episodes = play(make_evaluation(tmp_path, environment=CountingWorld(), policy=policy))

    decisions = sum(len(episode.steps) for episode in episodes)
    assert CountingWorld.num_steps == decisions == len(policy.calls)
    assert {len(step.candidates) for e in episodes for step in e.steps} == {1, 4}


@pytest.mark.parametrize(
    "selector",
    [FirstSelector(), RandomSelector(), MajoritySelector(), QSelector(), AdaptiveQSelector()],
)
def test_every_honest_selector_executes_one_step_per_decision(
    tmp_path: Path, selector: Selector
) -> None:
    CountingWorld.num_steps = 0
    agents = {"q_guided": AgentSpec(selector=selector, num_candidates=5)}
    episodes = play(make_evaluation(tmp_path, environment=CountingWorld(), agents=agents))

    assert CountingWorld.num_steps == sum(len(episode.steps) for episode in episodes)
    assert {(episode.extra_steps, episode.num_trials) for episode in episodes} == {(0, 1)}
    assert agents["q_guided"].uses == ""


@pytest.mark.parametrize(
    "spec",
    [
        AgentSpec(selector=OracleSelector(rollouts=2), num_candidates=3),
        AgentSpec(selector=FirstSelector(), trials=BestOfTrials(3)),
    ],
)
def test_upper_bounds_are_flagged_and_count_every_step_they_take(
    tmp_path: Path, spec: AgentSpec
) -> None:
    CountingWorld.num_steps = 0
    evaluation = make_evaluation(tmp_path, environment=CountingWorld(), agents={"q_guided": spec})
    episodes = play(evaluation)

    listed = sum(len(episode.steps) for episode in episodes)
    extra = sum(episode.extra_steps for episode in episodes)
    assert CountingWorld.num_steps == listed + extra
    assert extra > 0
    assert spec.uses == "the true reward"


def test_random_of_n_and_q_guided_see_the_same_proposals_at_the_same_history(
    tmp_path: Path,
) -> None:
    episodes = {episode.key: episode for episode in play(make_evaluation(tmp_path))}
    pairs = [
        (episode, episodes[key._replace(agent="random_of_n")])
        for key, episode in episodes.items()
        if key.agent == "q_guided"
    ]

    agreeing = 0
    for guided, control in pairs:
        for ours, theirs in zip(guided.steps, control.steps, strict=True):
            assert ours.candidates == theirs.candidates
            agreeing += 1
            if ours.action != theirs.action:
                break
    assert agreeing > len(pairs) == 8


def test_the_executed_action_has_the_highest_score(tmp_path: Path) -> None:
    guided = [episode for episode in play(make_evaluation(tmp_path)) if episode.agent == "q_guided"]

    for step in (step for episode in guided for step in episode.steps):
        assert step.scores is not None
        assert step.scores[step.chosen] == max(step.scores)
        assert step.candidates[step.chosen] == step.action


def test_the_window_is_filled_and_never_exceeded(tmp_path: Path) -> None:
    policy = WordPolicy(delay=0.001)

    play(make_evaluation(tmp_path, policy=policy, play={"concurrency": 5}))

    assert policy.most_in_flight == 5
    assert policy.closed == 1


def test_tokens_of_an_episode_are_counted(tmp_path: Path) -> None:
    guided = next(e for e in play(make_evaluation(tmp_path)) if e.agent == "q_guided")

    # Three decisions, each one prompt of 20 tokens and four candidates of 3.
    assert (guided.requests, guided.prompt_tokens, guided.generated_tokens) == (3, 60, 36)


def test_an_unanswered_episode_is_a_record_and_the_others_go_on(tmp_path: Path) -> None:
    word = make_evaluation(tmp_path).held_out_tasks()[0].data["target"][0]
    episodes = play(make_evaluation(tmp_path, policy=WordPolicy(fails_on=word)))

    failed = [episode for episode in episodes if episode.failure]
    assert 0 < len(failed) < len(episodes) == 24
    assert failed[0].failure == "PolicyFailure: no answer after 3 tries"
    assert failed[0].steps == []


def test_any_other_error_ends_the_run_and_closes_the_policy(tmp_path: Path) -> None:
    policy = WordPolicy()
    evaluation = make_evaluation(tmp_path, policy=policy, environment=BrokenWorld())

    with pytest.raises(ConfigError, match="choices or regex"):
        play(evaluation)

    assert policy.closed == 1


class BrokenWorld(ToyWorld):
    def _act(self, command: str) -> Outcome:
        raise ConfigError("Constraint takes either choices or regex, exactly one of them")


def test_it_runs_where_a_loop_runs_already(tmp_path: Path) -> None:
    async def notebook() -> int:
        return len(play(make_evaluation(tmp_path)))

    assert asyncio.run(notebook()) == 24


def test_an_error_reaches_the_caller_also_from_the_thread(tmp_path: Path) -> None:
    async def notebook() -> None:
        play(make_evaluation(tmp_path, environment=BrokenWorld()))

    with pytest.raises(ConfigError, match="choices or regex"):
        asyncio.run(notebook())


@pytest.mark.parametrize("inside_a_loop", [False, True])
def test_ctrl_c_cancels_what_runs_and_cleans_up(inside_a_loop: bool) -> None:
    cleaned: list[str] = []

    async def long() -> None:
        asyncio.get_running_loop().call_later(0.01, signal.pthread_kill, main_thread, signal.SIGINT)
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append("yes")

    async def notebook() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        run_to_end(long())

    main_thread = threading.get_ident()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(notebook()) if inside_a_loop else run_to_end(long())
    assert cleaned == ["yes"]

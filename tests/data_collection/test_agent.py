"""The search as an agent of an evaluation, on worlds whose best play is known."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data_collection.agent import SearchTrials
from data_collection.spec import SearchSpec
from data_collection.variants import sigmoid
from lit_qagent.agents.episode import Episode, EpisodeCut
from lit_qagent.agents.guided import GuidedAgent
from lit_qagent.agents.prompts import PromptSpec
from lit_qagent.agents.selection import FirstSelector
from lit_qagent.core.errors import ConfigError, EnvironmentFailure, PolicyFailure
from lit_qagent.core.records import (
    Constraint,
    History,
    Message,
    Observation,
    Proposal,
    Sampling,
    Task,
    Usage,
)
from lit_qagent.environments.base import Outcome
from lit_qagent.environments.splits import SplitSizes
from lit_qagent.environments.toy import ToyWorld
from lit_qagent.evaluation.report import write_report
from lit_qagent.evaluation.shard import EpisodeShard
from lit_qagent.evaluation.specs import AgentSpec
from lit_qagent.evaluation.tables import agent_table
from lit_qagent.policies.base import Policy
from tests.data_collection.parts import LetterWorld, PlannedPolicy, SeededPolicy
from tests.toy_players import TightPolicy, WordPolicy, WordScorer, make_agent, make_evaluation

LETTERS = ["a", "b", "c"]
REWARDS = {"aa": 0.2, "ab": 0.4, "ca": 1.0, "cb": 0.1}


def search(**options: Any) -> SearchTrials:  # noqa: ANN401
    return SearchTrials(SearchSpec(**{"num_candidates": 4, **options}))


def play(trials: SearchTrials, world: LetterWorld, player: GuidedAgent, seed: int = 0) -> Episode:
    [task] = world.tasks("test")
    return asyncio.run(trials.play(player, world, task, seed=seed))


class LetterScorer:
    """Prefers what it is told to, whatever earns the reward."""

    def __init__(self, liked: str) -> None:
        self.liked = liked

    async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
        wanted = self.liked[history.num_steps : history.num_steps + 1]
        return [2.0 if text == wanted else -2.0 for text in candidates]


def test_the_best_episode_that_the_search_saw_is_played_once_and_its_cost_is_counted() -> None:
    world = LetterWorld(rewards=REWARDS, max_steps=2)
    policy = SeededPolicy(actions=LETTERS)

    episode = play(search(num_iterations=12, stop_at_success=False), world, make_agent(policy))

    assert [step.action for step in episode.trajectory.steps] == ["c", "a"]
    assert episode.trajectory.success
    assert episode.num_trials == 1
    assert episode.usage.requests == len(policy.seeds)
    assert episode.usage.generated_tokens >= 2 * 4 * 4  # four expansions of four samples at least
    assert episode.extra_steps > len(episode.trajectory.steps)
    first, second = episode.decisions
    assert first.action == "c"
    assert first.selection.scores is not None
    assert len(first.selection.scores) == len(first.proposed.proposals) > 1
    assert second.action == "a"


@pytest.mark.parametrize(
    ("variant", "scores"),
    [
        ("uct", None),
        ("puct", None),  # the prior of "b" is a share and no value
        ("q_value", (1.0, sigmoid(-2.0))),
        ("q_only", (sigmoid(2.0), sigmoid(-2.0))),
    ],
)
def test_values_are_shown_of_what_the_search_has_valued(
    variant: str, scores: tuple[float, float] | None
) -> None:
    policy = PlannedPolicy({"": ["a", "b"]})
    player = make_agent(policy, scorer=LetterScorer("a"))
    trials = search(variant=variant, num_iterations=1)

    # The search looks at "a", which ends the episode with a success, and never at "b".
    episode = play(trials, LetterWorld(rewards={"a": 1.0}), player)

    [decision] = episode.decisions
    assert decision.action == "a"
    assert len(decision.proposed.proposals) == 2
    assert decision.selection.scores == scores


def test_a_search_that_may_stop_at_a_success_costs_less() -> None:
    world = LetterWorld(rewards=REWARDS, max_steps=2)
    early, late = (
        play(
            search(num_iterations=20, stop_at_success=stops),
            world,
            make_agent(SeededPolicy(actions=LETTERS)),
        )
        for stops in (True, False)
    )
    assert early.trajectory.success
    assert early.usage.requests < late.usage.requests


def test_a_search_without_the_reward_follows_its_values_and_not_the_reward() -> None:
    world = LetterWorld(rewards=REWARDS, max_steps=2)
    trials = search(variant="q_only", num_iterations=12, eta=0.1)
    player = make_agent(SeededPolicy(actions=LETTERS), scorer=LetterScorer("ab"))

    episode = play(trials, world, player)

    # The search saw the full reward of "ca", and must not know it.
    assert [step.action for step in episode.trajectory.steps] == ["a", "b"]
    assert trials.uses == "copies of the world"


def test_what_the_search_left_open_is_played_by_the_agent_itself() -> None:
    world = LetterWorld(rewards={"abab": 1.0}, max_steps=4)
    player = make_agent(SeededPolicy(actions=["a", "b"]), scorer=LetterScorer("abab"))

    episode = play(search(variant="q_only", num_iterations=1), world, player)

    assert len(episode.trajectory.steps) == 4
    assert episode.trajectory.steps[0].action == "a"
    assert len(episode.decisions[1].proposed.proposals) == 1  # the agent's own, one candidate
    assert episode.usage.requests == 1 + 3


def test_scores_of_the_policy_itself_need_no_reward_and_no_q_model() -> None:
    world = ToyWorld(depth=2, num_actions=3, splits=SplitSizes(train=2, valid=2, test=2))
    trials = search(variant="score_only", num_iterations=4)
    task = world.tasks("test")[0]
    prompt = PromptSpec(think=False, num_examples=0, constrain=True)
    player = make_agent(_Judge(), prompt=prompt)

    episode = asyncio.run(trials.play(player, world, task, seed=0))

    assert not trials.needs_scorer
    assert episode.trajectory.reward == 1.0  # the judge knows the words, the search believes it


class _Judge(Policy):
    """Offers all legal words, and scores those highest that the task asks for."""

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        assert constraint is not None
        if constraint.choices[0] == "1":
            action = messages[-1].content.rpartition("\n")[2]
            task = next(m.content for m in messages if m.role == "user").split(".")[0]
            good = action.removeprefix("pick[").removesuffix("]") in task
            return [Proposal(text="10" if good else "1", num_tokens=1)]
        choices = [constraint.choices[i % len(constraint.choices)] for i in range(n)]
        return [Proposal(text=text, num_tokens=1) for text in choices]

    def settings(self) -> dict[str, Any]:
        return {"policy": "judge"}


def test_a_policy_that_fails_cuts_the_episode_with_what_it_has_cost() -> None:
    class Dying(SeededPolicy):
        async def propose(self, *args: Any, **options: Any) -> list[Proposal]:  # noqa: ANN401
            if len(self.seeds) == 3:
                raise PolicyFailure("gone")
            return await super().propose(*args, **options)

    world = LetterWorld(rewards=REWARDS, max_steps=2)
    with pytest.raises(EpisodeCut) as cut:
        play(
            search(num_iterations=12, stop_at_success=False),
            world,
            make_agent(Dying(actions=LETTERS)),
        )
    assert isinstance(cut.value.__cause__, PolicyFailure)
    assert cut.value.episode.trajectory.steps == ()
    assert cut.value.episode.usage.requests == 3
    assert cut.value.episode.extra_steps > 0


def plan(world: LetterWorld, policy: Policy, **options: Any) -> Episode:  # noqa: ANN401
    """Play as `play` does; of an episode that is cut, return what was played."""
    try:
        return play(search(num_candidates=2, **options), world, make_agent(policy))
    except EpisodeCut as cut:
        return cut.episode


@pytest.mark.parametrize("leaves", [1, 4])
def test_answers_within_an_iteration_that_fails_are_paid_for(leaves: int) -> None:
    # Two letters, then the rollout acc: four answers. Behind that nobody answers.
    policy = PlannedPolicy({"": ["a", "b"], "a": ["c"], "ac": ["c"], "acc": ["c"]})

    cut = plan(LetterWorld(rewards={}, max_steps=9), policy, leaves_in_flight=leaves)

    assert cut.trajectory.steps == ()
    assert len(policy.requests) == 5
    # The expansion brought two actions, each step of the rollout one.
    assert cut.usage == Usage(requests=4, prompt_tokens=0, generated_tokens=2 + 1 + 1 + 1)


def test_finished_and_failed_iterations_are_paid_for_once() -> None:
    # Iteration 0: a, b and the end ac. Iteration 1: bc, behind which nobody answers.
    policy = PlannedPolicy({"": ["a", "b"], "a": ["c"], "b": ["c"]})

    cut = plan(LetterWorld(rewards={"ac": 0.5}), policy)

    assert policy.requests[-1] == ("bc", 1)
    assert cut.usage == Usage(requests=3, prompt_tokens=0, generated_tokens=2 + 1 + 1)
    assert cut.extra_steps == 2 + 1  # of iteration 0


def test_an_expansion_beside_the_one_that_succeeds_is_paid_for() -> None:
    # Iteration 0: a, b and the end ac. Then b and a at once, of which b brings the end bd.
    policy = PlannedPolicy({"": ["a", "b"], "a": ["c", "d"], "b": ["c", "d"]})
    world = LetterWorld(rewards={"ac": 0.0, "ad": 0.0, "bc": 0.0, "bd": 1.0})

    episode = plan(world, policy, leaves_in_flight=2)

    assert [step.action for step in episode.trajectory.steps] == ["b", "d"]
    assert policy.requests == [("", 2), ("a", 1), ("b", 2), ("a", 2)]
    assert episode.usage == Usage(requests=4, prompt_tokens=0, generated_tokens=2 + 1 + 2 + 2)


def test_of_an_iteration_that_is_given_up_the_answers_so_far_are_paid_for() -> None:
    class Hanging(PlannedPolicy):
        """Never answers a sixth request."""

        async def propose(self, *args: Any, **options: Any) -> list[Proposal]:  # noqa: ANN401
            if len(self.requests) == 5:
                self.requests.append(("hangs", 0))
                await asyncio.Event().wait()
            return await super().propose(*args, **options)

    # Iteration 0: a, b and the end acc. Then b and a at once; behind a a rollout hangs.
    policy = Hanging({"": ["a", "b"], "a": ["c", "d"], "ac": ["c"], "b": ["d", "c"]})
    world = LetterWorld(rewards={"acc": 0.0, "bd": 1.0})

    episode = plan(world, policy, leaves_in_flight=2)

    assert episode.trajectory.success
    assert [asked for asked, _ in policy.requests] == ["", "a", "ac", "b", "a", "hangs"]
    # What nobody answered is in no count of the policy either.
    assert episode.usage == policy.usage
    assert episode.usage.requests == 5


@pytest.mark.parametrize("leaves", [1, 2, 4])
def test_an_episode_costs_what_the_policy_was_paid(leaves: int) -> None:
    policy = SeededPolicy(actions=LETTERS)
    world = LetterWorld(rewards={"abc": 1.0, "bca": 0.5}, max_steps=5)

    episode = play(search(num_iterations=24, leaves_in_flight=leaves), world, make_agent(policy))

    assert episode.usage == policy.usage


def test_what_the_search_had_to_leave_out_is_counted() -> None:
    # Iteration 0: a, b and the rollout acd, whose last action leaves a step out.
    policy = TightPolicy(PlannedPolicy({"": ["a", "b"], "a": ["c"], "ac": ["d"]}))

    episode = plan(LetterWorld(rewards={"acd": 1.0}), policy)

    assert [step.action for step in episode.trajectory.steps] == ["a", "c", "d"]
    assert (episode.cut_candidates, episode.dropped_steps) == (2 + 1 + 1, 1)


def test_what_a_search_without_an_end_had_to_leave_out_is_counted() -> None:
    # Expands the start, a and ab, and finds no end; then the agent says six letters by itself.
    letters = {"": ["a"], "a": ["b"], "ab": ["c"], "abc": ["d"], "abcd": ["e"], "abcde": ["f"]}
    player = make_agent(TightPolicy(PlannedPolicy(letters)), scorer=LetterScorer("abcdef"))
    trials = search(variant="q_value", num_iterations=3)

    episode = play(trials, LetterWorld(rewards={}, max_steps=6), player)

    # Of three prompts of the search one leaves out a step, of the agent's six 0, 0, 1, 2, 3 and 4.
    assert (episode.cut_candidates, episode.dropped_steps) == (3 + 6, 1 + 10)


def test_what_a_search_that_fails_had_to_leave_out_is_counted() -> None:
    policy = TightPolicy(PlannedPolicy({"": ["a", "b"], "a": ["c"], "ac": ["d"]}))

    cut = plan(LetterWorld(rewards={}, max_steps=9), policy)

    assert (cut.cut_candidates, cut.dropped_steps) == (2 + 1 + 1, 1)


@pytest.mark.parametrize("breaks_at", ["reset", "step"])
def test_a_world_that_breaks_after_the_search_leaves_its_cost(breaks_at: str) -> None:
    class Breaking(LetterWorld):
        """Breaks when it is started anew, which the search does not do, or at the step after."""

        num_starts = 0

        def _start(self, task: Task) -> Observation:
            type(self).num_starts += 1
            if breaks_at == "reset" and self.num_starts > 1:
                raise EnvironmentFailure("gone")
            return super()._start(task)

        def _act(self, command: str) -> Outcome:
            if self.num_starts > 1:
                raise EnvironmentFailure("gone")
            return super()._act(command)

    policy = PlannedPolicy({"": ["a"]})

    cut = plan(Breaking(rewards={"a": 1.0}), policy)

    assert (cut.usage.requests, cut.extra_steps) == (1, 1)
    assert cut.trajectory.first_observation.text == "Spell 0. So far: "


def test_it_is_one_agent_of_a_comparison_and_flagged(tmp_path: Path) -> None:
    evaluation = make_evaluation(
        tmp_path / "out",
        policy=WordPolicy(),
        agents={
            "q_guided": AgentSpec(selector=FirstSelector()),
            "mcts": AgentSpec(
                selector=FirstSelector(),
                trials=search(num_iterations=8),
            ),
            "q_search": AgentSpec(
                selector=FirstSelector(),
                trials=search(num_iterations=8, num_candidates=16, variant="q_only", eta=0.1),
            ),
        },
        tasks={"num_tasks": 3, "seeds": [0]},
    )
    EpisodeShard(evaluation).play(WordScorer(), {})

    report = write_report(tmp_path / "out")

    agents = report["agents"]
    assert agents["mcts"]["uses"] == "the true reward and copies of the world"
    assert agents["q_search"]["uses"] == "copies of the world"
    assert agents["mcts"]["trials"]["search"]["num_iterations"] == 8
    assert agents["q_search"]["reward"] == 1.0  # WordScorer is the optimal Q
    shown = {row[0]: row[1] for row in agent_table(report)}
    assert shown == {"agent": "n", "q_guided": "1", "mcts †": "4", "q_search †": "16"}
    cost = {name: row["cost"] for name, row in agents.items()}
    assert cost["mcts"]["requests"] > cost["q_guided"]["requests"]
    assert cost["mcts"]["environment_steps"] > cost["q_guided"]["environment_steps"]
    text = (tmp_path / "out" / "report.md").read_text()
    assert "† mcts: uses the true reward and copies of the world" in text
    assert "mcts †" in text
    page = (tmp_path / "out" / "report.html").read_text()
    assert "value of the search = " in page
    assert "of an agent that searches first, per expansion" in page
    assert "of an agent that searches first, per expansion" in text
    assert "Q = " not in page  # no selector here has any


def test_a_search_that_needs_a_q_model_says_so(tmp_path: Path) -> None:
    evaluation = make_evaluation(
        tmp_path / "out",
        agents={
            "q_guided": AgentSpec(selector=FirstSelector(), trials=search(variant="puct")),
            "plain": AgentSpec(selector=FirstSelector()),
        },
    )
    with pytest.raises(ConfigError, match="agents q_guided need a Q-model"):
        evaluation.build_agents(None)


@pytest.mark.integration  # importing lightning takes seconds
def test_it_is_named_in_yaml() -> None:
    from lit_qagent.cli import QAgentParser
    from lit_qagent.command_line import load_yaml
    from lit_qagent.evaluation.tasks import EpisodeDataModule

    parser = QAgentParser()
    parser.add_subclass_arguments(EpisodeDataModule, "data")
    values = load_yaml(CONFIG)
    module = parser.instantiate(parser.parse_object({"data": values})).data
    agent = module.evaluation.agents["q_guided"]
    assert agent.trials.search == {**SearchSpec(variant="lats", num_iterations=3).manifest()}
    assert "true reward" in agent.uses


CONFIG = """
class_path: lit_qagent.evaluation.tasks.EpisodeDataModule
init_args:
  environment: {class_path: lit_qagent.environments.toy.ToyWorld}
  policy: {class_path: lit_qagent.policies.scripted.ScriptedPolicy}
  sampling: {max_tokens: 8}
  tasks: {num_tasks: 2}
  play: {output: unused}
  agents:
    q_guided:
      selector: lit_qagent.agents.selection.FirstSelector
      trials:
        class_path: data_collection.agent.SearchTrials
        init_args: {search: {variant: lats, num_iterations: 3}}
"""

"""The search as an agent of an evaluation, on worlds whose best play is known."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data_collection.spec import SearchSpec
from data_collection.variants import sigmoid
from lit_qagent.agents.prompts import PromptSpec
from lit_qagent.agents.selection import FirstSelector
from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import (
    Constraint,
    Message,
    Proposal,
    Sampling,
)
from lit_qagent.environments.splits import SplitSizes
from lit_qagent.environments.toy import ToyWorld
from lit_qagent.evaluation.report import write_report
from lit_qagent.evaluation.shard import EpisodeShard
from lit_qagent.evaluation.specs import AgentSpec
from lit_qagent.evaluation.tables import agent_table
from lit_qagent.policies.base import Policy
from tests.data_collection.parts import LetterWorld, PlannedPolicy, SeededPolicy
from tests.data_collection.search_agents import LETTERS, REWARDS, LetterScorer, play, search
from tests.toy_players import WordPolicy, WordScorer, make_agent, make_evaluation


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

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_collection.asking import critique_note, siblings_note
from data_collection.iterations import Iteration, iteration_from_json, iteration_to_json
from data_collection.search import TreeSearch
from data_collection.setup import SearchSetup
from data_collection.spec import SearchSpec
from data_collection.tree import ROOT, SearchTree
from data_collection.uct import Descent, puct
from data_collection.variants import VARIANTS, sigmoid, softmax
from lit_qagent.agents.prompts import PromptSpec
from lit_qagent.core.errors import CheckpointError, ConfigError, ModelError
from lit_qagent.core.records import Constraint, History, Message, Proposal, Sampling
from lit_qagent.environments.toy import ToyWorld
from lit_qagent.policies.base import Policy
from lit_qagent.policies.scripted import ScriptedPolicy
from tests.data_collection.parts import (
    LetterWorld,
    SeededPolicy,
    make_setup,
    make_step,
    search_tree,
)

REWARDS = {"aa": 0.0, "ab": 0.5, "ba": 0.25, "bb": 1.0, "ca": 0.0}


class LetterScorer:
    """Likes later letters: Q of a is 0, of b 1, of c 2."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, tuple[str, ...]]] = []

    async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
        self.asked.append((history.num_steps, tuple(candidates)))
        return [float("abc".index(action)) for action in candidates]

    def settings(self) -> dict[str, str]:
        return {"likes": "later letters"}


class TalkingPolicy(Policy):
    """Draws letters in turn; scores, criticises and reflects when asked to."""

    def __init__(self, letters: str = "abab", score: str = "I say 10.") -> None:
        super().__init__()
        self.letters = letters
        self.score = score
        self.prompts: list[str] = []
        self.limits: list[tuple[str, ...]] = []
        self._next = 0

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        asked = messages[-1].content
        self.prompts.append("\n".join(message.content for message in messages))
        self.limits.append(constraint.choices if constraint else ())
        if "Answer with the number alone" in asked:
            texts = [self.score]
        elif "Do not move yet" in asked:
            texts = ["It is too short."]
        elif "The task is over" in asked:
            texts = ["Begin with\n b."]
        else:
            texts = [self._letter() for _ in range(n)]
        proposals = [Proposal(text=text, num_tokens=3) for text in texts]
        return self.charge(proposals, prompt_tokens=10, generated_tokens=3 * len(texts))

    def settings(self) -> dict[str, str]:
        return {"name": "talking"}

    def _letter(self) -> str:
        letter = self.letters[self._next % len(self.letters)]
        self._next += 1
        return letter


def _setup(policy: Policy, scorer: LetterScorer | None = None, **search: object) -> SearchSetup:
    spec = SearchSpec(**{"num_candidates": 3, "stop_at_success": False} | search)  # type: ignore[arg-type]
    return SearchSetup(
        environment=LetterWorld(rewards=REWARDS, max_steps=2),
        policy=policy,
        search=spec,
        prompt=PromptSpec(think=False, num_examples=0),
        sampling=Sampling(),
        seed=2,
        scorer=scorer,
    )


def _search(setup: SearchSetup) -> tuple[TreeSearch, list[Iteration]]:
    search = TreeSearch(setup, setup.environment.tasks("train")[0])
    iterations: list[Iteration] = []
    end = asyncio.run(search_tree(search, iterations.append))
    assert end.reason != "failed", end.failure
    return search, iterations


def _letters() -> SeededPolicy:
    return SeededPolicy(actions=["a", "b", "c"])


def test_puct_equals_a_hand_calculation() -> None:
    # Exploration is 1.25 times 0.6 times 3, over 3 and over 1.
    assert puct(0.5, 0.6, 2, 9, weight=1.25) == pytest.approx(1.25)
    assert puct(0.0, 0.6, 0, 9, weight=1.25) == pytest.approx(2.25)


def test_priors_are_a_softmax_of_q() -> None:
    # exp 0, 1, 2 = 1, 2.7183, 7.3891, in all 11.1073
    assert softmax([0.0, 1.0, 2.0], 1.0) == pytest.approx((0.0900, 0.2447, 0.6652), abs=1e-4)
    assert softmax([1e6, 0.0], 0.1) == (1.0, 0.0)


def test_puct_looks_first_where_q_is_high_and_keeps_the_priors() -> None:
    scorer = LetterScorer()
    search, iterations = _search(_setup(_letters(), scorer, variant="puct", num_iterations=1))
    [iteration] = iterations
    actions = [step.action for step in iteration.children]
    assert actions[iteration.evaluated - 1] == max(actions)
    assert sum(iteration.priors) == pytest.approx(1.0)
    assert [node.prior for node in search.tree.nodes[1:]] == list(iteration.priors)
    assert scorer.asked[0] == (0, tuple(actions))


def test_puct_selects_by_prior() -> None:
    tree = SearchTree(truncation_reward=-1.0)
    for name, prior in (("a", 0.1), ("b", 0.7), ("c", 0.2)):
        tree.add(ROOT, make_step(name), prior)
    tree.backup(1, 0.0)
    assert Descent(selection="puct").select(tree) == 2


def test_guided_rollouts_take_the_best_of_n() -> None:
    policy = SeededPolicy(actions=["a", "b", "c"])
    scorer = LetterScorer()
    _, iterations = _search(_setup(policy, scorer, variant="q_rollout", num_iterations=4))
    rollouts = [step.action for each in iterations for step in each.rollout]
    asked = [actions for _, actions in scorer.asked]
    assert rollouts == [max(actions) for actions in asked]
    assert all(len(set(actions)) == len(actions) for actions in asked)


def test_without_rollouts_a_leaf_is_worth_its_q() -> None:
    policy = _letters()
    _, iterations = _search(_setup(policy, LetterScorer(), variant="q_value", num_iterations=6))
    assert not any(each.rollout for each in iterations)
    first = iterations[0]
    best = max(step.action for step in first.children)
    assert first.reward == pytest.approx(sigmoid(float("abc".index(best))))
    at_ends = [each for each in iterations if each.selected != ROOT and each.children]
    # The world is two steps deep: the second step is an end, and the true reward is taken.
    assert {each.reward for each in at_ends} <= {-1.0, 0.0, 0.25, 0.5, 1.0}
    assert sum(each.cost.requests for each in iterations) == sum(
        bool(each.children) for each in iterations
    )


def test_lats_scores_children_and_reflects_on_failures() -> None:
    policy = TalkingPolicy("aabab")
    search, iterations = _search(_setup(policy, variant="lats", num_iterations=2))
    first = iterations[0]
    # a was proposed twice of three times; the policy's own score is 10 of 10.
    assert [step.action for step in first.children] == ["a", "b"]
    assert first.priors == pytest.approx((0.5 + 0.5 * 2 / 3, 0.5 + 0.5 / 3))
    assert first.reflection == "Begin with b."
    assert "The task is over" in policy.prompts[4]
    # The note is shown from now on and is no part of what is kept.
    assert all("- Begin with b." in prompt for prompt in policy.prompts[5:])
    assert not any("Begin with" in message.content for message in search.header.head)
    assert first.cost.requests == 1 + 2 + 1 + 1
    assert first.cost.cut_actions == 0


def test_a_critic_of_its_own_scores_reflects_and_criticises_and_the_policy_only_acts() -> None:
    policy, critic = TalkingPolicy("aabab"), TalkingPolicy()
    setup = replace(
        _setup(policy, variant="lats", expansion="critique", num_iterations=1), critic=critic
    )
    _, [iteration] = _search(setup)
    asked = ("Do not move yet", "The task is over")
    assert not any(word in prompt for prompt in policy.prompts for word in asked)
    assert critic.prompts
    assert all(any(word in prompt for word in asked) for prompt in critic.prompts)
    assert iteration.cost.requests == len(policy.prompts) + len(critic.prompts)
    assert setup.manifest()["critic"] == {"name": "talking"}


def test_a_critic_that_nobody_asks_is_refused() -> None:
    with pytest.raises(ConfigError, match="a critic was given, but nothing asks it"):
        replace(_setup(TalkingPolicy()), critic=TalkingPolicy())


def test_an_answer_that_is_no_score_counts_as_the_middle_and_is_counted() -> None:
    policy = TalkingPolicy("ab", score="who knows 17")
    _, [iteration] = _search(_setup(policy, variant="lats", num_iterations=1, score_weight=1.0))
    assert iteration.priors == (0.5, 0.5)
    assert iteration.cost.unread_scores == 2
    assert iteration_to_json(iteration)["cost"]["unread_scores"] == 2


def test_a_first_value_counts_as_one_visit() -> None:
    tree = SearchTree(truncation_reward=-1.0)
    for name, prior in (("a", 0.2), ("b", 0.9)):
        tree.add(ROOT, make_step(name), prior)
    descent = Descent(selection="valued", eta=0.0)
    assert descent.select(tree) == 2
    tree.backup(2, -1.0)
    # (-1 + 0.9) / 2 = -0.05 is below 0.2.
    assert descent.select(tree) == 1


def test_conditional_expansion_shows_the_siblings_so_far() -> None:
    policy = TalkingPolicy("abc")
    setup = _setup(policy, expansion="conditional", num_iterations=1)
    _, [iteration] = _search(setup)
    assert [step.action for step in iteration.children] == ["a", "b", "c"]
    assert "on the table" not in policy.prompts[0]
    assert policy.prompts[1].endswith(siblings_note(["a"]))
    assert policy.prompts[2].endswith(siblings_note(["a", "b"]))
    assert iteration.cost.requests == 4  # three candidates and one step of a rollout


def test_critique_expansion_criticises_the_candidate_before() -> None:
    policy = TalkingPolicy("abc")
    _, [iteration] = _search(_setup(policy, expansion="critique", num_iterations=1))
    assert [step.action for step in iteration.children] == ["a", "b", "c"]
    assert policy.prompts[1].endswith("\na")
    assert policy.prompts[2].endswith(critique_note("a", "It is too short."))
    assert policy.prompts[4].endswith(critique_note("b", "It is too short."))


def test_candidates_on_the_table_are_no_legal_choices_any_more() -> None:
    class Choosy(TalkingPolicy):
        async def propose(self, *args: object, **kwargs: object) -> list[Proposal]:
            answer = await super().propose(*args, **kwargs)  # type: ignore[arg-type]
            text = self.limits[-1][0]
            return [Proposal(text=text, num_tokens=1) for _ in answer]

    policy = Choosy()
    setup = SearchSetup(
        environment=ToyWorld(),
        policy=policy,
        search=SearchSpec(num_candidates=6, expansion="conditional", num_iterations=1),
        prompt=PromptSpec(think=False, num_examples=0, constrain=True),
        sampling=Sampling(),
        seed=0,
    )
    _, [iteration] = _search(setup)
    assert len(iteration.children) == 4
    assert [len(limit) for limit in policy.limits[:6]] == [4, 3, 2, 1, 4, 4]


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_a_tree_of_any_variant_goes_on_from_its_records(variant: str) -> None:
    def setup() -> SearchSetup:
        scorer = LetterScorer() if VARIANTS[variant].needs_scorer else None
        return _setup(_letters(), scorer, variant=variant, num_iterations=10, leaves_in_flight=2)

    whole, iterations = _search(setup())
    written = [json.dumps(iteration_to_json(each)) for each in iterations]
    resumed = TreeSearch(setup(), setup().environment.tasks("train")[0])
    resumed.restore([iteration_from_json(json.loads(line)) for line in written[:4]])
    rest: list[Iteration] = []
    asyncio.run(search_tree(resumed, rest.append))
    assert rest == iterations[4:]
    assert resumed.tree == whole.tree


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], "Broken gave 1 values for 3 candidates; a scorer gives one each"),
        ([1.0, float("nan"), 0.0], "the value of nan to candidate 'b' after 0 steps"),
        ([1.0, 2.0, float("inf")], "the value of inf to candidate 'c'"),
    ],
)
def test_a_scorer_that_gives_no_values_is_refused(values: list[float], message: str) -> None:
    class Broken(LetterScorer):
        async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
            return values

    setup = _setup(TalkingPolicy("abc"), Broken(), variant="puct")
    search = TreeSearch(setup, setup.environment.tasks("train")[0])
    with pytest.raises(ModelError, match=message):
        asyncio.run(search.iterate())


def test_a_scorer_is_given_where_it_is_used_and_nowhere_else() -> None:
    with pytest.raises(ConfigError, match=r"search.variant 'puct' needs a Q-model; give --scorer"):
        _setup(_letters(), variant="puct")
    with pytest.raises(ConfigError, match=r"does not use it; leave it out or take one of puct"):
        _setup(_letters(), LetterScorer())


def test_a_q_model_of_other_prompts_is_refused() -> None:
    class Trained(LetterScorer):
        def settings(self) -> dict[str, Any]:
            return {"lineage": {"prompt": {"version": "1", "think": True, "num_examples": 3}}}

    with pytest.raises(CheckpointError, match=r"prompt.num_examples 3 in training, 0 now"):
        _setup(_letters(), Trained(), variant="puct")


def test_what_a_search_was_made_with_names_the_scorer_and_the_variant() -> None:
    manifest = _setup(_letters(), LetterScorer(), variant="puct", leaves_in_flight=3).manifest()
    assert manifest["search"]["variant"] == "puct"
    assert manifest["search"]["leaves_in_flight"] == 3
    assert manifest["scorer"]["likes"] == "later letters"
    assert "LetterScorer" in manifest["scorer"]["class"]


def test_manifests_of_searches_as_they_were_have_not_changed() -> None:
    assert list(make_setup(LetterWorld(rewards={}), _letters()).manifest()["search"]) == [
        "num_iterations",
        "num_candidates",
        "eta",
        "truncation_reward",
        "stop_at_success",
        "revisit_ends",
    ]


def test_every_variant_says_whether_it_uses_the_true_reward() -> None:
    text = (Path(__file__).parents[2] / "data_collection" / "variants.py").read_text()
    assert all(f"| ``{name}`` |" in text for name in VARIANTS)


def test_variants_without_the_true_reward_never_come_back_to_ends_that_would_be_worth_it() -> None:
    without = {name for name, kind in VARIANTS.items() if not kind.uses_reward}
    assert without == {"q_only", "score_only"}
    for name in without:
        with pytest.raises(ConfigError, match=rf"revisit_ends is true, .*variant '{name}' never"):
            SearchSpec(variant=name, revisit_ends=True)  # type: ignore[arg-type]
        SearchSpec(variant=name)  # type: ignore[arg-type]
    SearchSpec(variant="q_value", revisit_ends=True)


class OptimalScorer:
    """Knows the toy world: Q is the best reward that can still be had after an action."""

    def __init__(self, world: ToyWorld) -> None:
        self.world = world
        self.tasks = {task.instruction: task for task in world.tasks("train")}

    async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
        branch = self.world.fork()
        branch.reset(self.tasks[history.head[-1].content.split("\n")[0]])
        done = [message.content for message in history.turns[::2]]
        return [branch.optimal_q([*done, action]) for action in candidates]


def _iterations_to_success(variant: str) -> float:
    world = ToyWorld(depth=4, num_actions=4, max_steps=5)
    setup = SearchSetup(
        environment=world,
        policy=ScriptedPolicy("uniform"),
        search=SearchSpec(
            variant=variant,  # type: ignore[arg-type]
            num_iterations=60,
            num_candidates=16,
            eta=0.1,
            prior_temperature=0.05,
            value_of_q="identity",
        ),
        prompt=PromptSpec(think=False, num_examples=0, constrain=True),
        sampling=Sampling(),
        seed=0,
        scorer=OptimalScorer(world) if VARIANTS[variant].needs_scorer else None,
    )
    numbers = []
    for task in world.tasks("train")[:16]:
        search = TreeSearch(setup, task)
        asyncio.run(search_tree(search, lambda _: None))
        numbers.append(search.num_iterations)
    return sum(numbers) / len(numbers)


def test_a_good_q_model_leads_every_variant_that_uses_it_to_success_sooner() -> None:
    plain = _iterations_to_success("uct")
    guided = {name: _iterations_to_success(name) for name in ("puct", "q_rollout", "q_value")}
    assert plain > 10
    assert guided["q_rollout"] < plain  # its first child is whichever was sampled first
    assert guided["puct"] < plain / 2
    assert guided["q_value"] < plain / 2

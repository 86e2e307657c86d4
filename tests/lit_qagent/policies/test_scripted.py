import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from lit_qagent.core.errors import ConfigError, PolicyFailure
from lit_qagent.core.records import Constraint, Message, Proposal, RequestCost, Sampling
from lit_qagent.policies.scripted import ScriptedPolicy

CHAT = (Message(role="system", content="Pick one."), Message(role="user", content="Which?"))
CHOICES = Constraint(choices=("pick[a]", "pick[b]", "pick[c d]"))


def propose(
    policy: ScriptedPolicy,
    n: int,
    *,
    seed: int | None = 0,
    constraint: Constraint | None = CHOICES,
    messages: Sequence[Message] = CHAT,
) -> list[Proposal]:
    return asyncio.run(policy.propose(messages, n, Sampling(), constraint=constraint, seed=seed))


def test_uniform_draws_every_choice_about_equally_often() -> None:
    texts = Counter(p.text for p in propose(ScriptedPolicy(), 3000))
    assert set(texts) == set(CHOICES.choices)
    # Binomial(3000, 1/3) has a standard deviation of 26.
    assert all(abs(count - 1000) < 130 for count in texts.values())


def test_same_seed_and_prompt_same_actions_another_seed_others() -> None:
    policy = ScriptedPolicy()
    assert propose(policy, 20, seed=3) == propose(policy, 20, seed=3)
    assert propose(policy, 20, seed=3) != propose(policy, 20, seed=4)
    other = (*CHAT[:1], Message(role="user", content="And now?"))
    assert propose(policy, 20, seed=3) != propose(policy, 20, seed=3, messages=other)


def test_usage_counts_words() -> None:
    policy = ScriptedPolicy(mode="first")
    proposals = propose(policy, 2)
    assert [p.text for p in proposals] == ["pick[a]", "pick[a]"]
    # "system: Pick one." and "user: Which?" are five words; each answer is one.
    assert proposals[0].cost == RequestCost(requests=1, prompt_tokens=5, generated_tokens=2)
    assert proposals[1].cost == RequestCost()
    assert policy.usage.to_dict() == {
        "requests": 1,
        "prompt_tokens": 5,
        "generated_tokens": 2,
    }


def test_table_answers_the_last_message() -> None:
    policy = ScriptedPolicy(mode="table", answers={"Which?": ["Finish[yes]"]})
    assert [p.text for p in propose(policy, 2, constraint=None)] == ["Finish[yes]"] * 2
    with pytest.raises(PolicyFailure, match=r"no action for the message 'Pick one\.'"):
        propose(policy, 1, messages=CHAT[:1])


def test_a_function_sees_messages_choices_and_randomness() -> None:
    def last(messages: Sequence[Message], choices: Sequence[str], rng: random.Random) -> str:
        return f"{messages[-1].content} {choices[-1]} {rng.random() < 1}"

    policy = ScriptedPolicy(script=last)
    assert propose(policy, 1)[0].text == "Which? pick[c d] True"
    assert policy.settings()["script"] == "last"


def test_nothing_to_pick_from_is_a_failure() -> None:
    with pytest.raises(PolicyFailure, match=r"set prompt\.constrain true"):
        propose(ScriptedPolicy(), 1, constraint=None)
    with pytest.raises(ConfigError, match="n=0"):
        propose(ScriptedPolicy(), 0)


def test_mode_and_answers_must_go_together() -> None:
    with pytest.raises(ConfigError, match="mode 'table' without answers"):
        ScriptedPolicy(mode="table")
    with pytest.raises(ConfigError, match="mode 'uniform' with answers"):
        ScriptedPolicy(answers={"a": ["b"]})

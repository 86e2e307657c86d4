import asyncio
from collections.abc import Sequence
from dataclasses import asdict

import pytest

from lit_qagent.agents.prompts import PromptSpec, action_constraint
from lit_qagent.core.errors import ConfigError, ContextOverflow, PolicyFailure
from lit_qagent.core.records import (
    Constraint,
    Message,
    Observation,
    Proposal,
    RequestCost,
    Sampling,
    total_cost,
)
from lit_qagent.policies.base import Policy
from lit_qagent.policies.openai import OpenAIPolicy
from lit_qagent.policies.reprompt import RepromptPolicy, describe, is_legal
from tests.fault_server import completion, fault_server

CHAT = (Message(role="user", content="Door or window?"),)
DOORS = Constraint(choices=("open[door]", "open[window]"), commands=("open[door]", "open[window]"))


class Answers(Policy):
    """Gives the next of its texts to each sample; counts what it was asked."""

    def __init__(self, *texts: str | Exception) -> None:
        super().__init__()
        self.texts = list(texts)
        self.chats: list[Sequence[Message]] = []
        self.constraints: list[Constraint | None] = []
        self.seeds: list[int | None] = []

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        self.chats.append(tuple(messages))
        self.constraints.append(constraint)
        self.seeds.append(seed)
        taken = [self.texts.pop(0) for _ in range(n)]
        proposals = []
        for text in taken:
            if isinstance(text, Exception):
                raise text
            proposals.append(Proposal(text=text, num_tokens=7, log_prob=-1.0))
        return self.charge(proposals, prompt_tokens=100 * len(messages), generated_tokens=7 * n)

    def settings(self) -> dict[str, object]:
        return {"policy": "answers"}


def ask(
    policy: RepromptPolicy, constraint: Constraint | None = DOORS, n: int = 1, seed: int | None = 0
) -> list[Proposal]:
    return asyncio.run(policy.propose(CHAT, n, Sampling(), constraint=constraint, seed=seed))


def test_a_legal_answer_is_kept_as_it_is() -> None:
    inner = Answers("Thought: fresh air.\nAction: open[window]")
    [proposal] = ask(RepromptPolicy(inner))
    assert proposal == Proposal(
        text="Thought: fresh air.\nAction: open[window]",
        num_tokens=7,
        log_prob=-1.0,
        cost=RequestCost(requests=1, prompt_tokens=100, generated_tokens=7),
    )
    assert inner.constraints == [None]


def test_an_illegal_answer_is_asked_for_again_with_the_legal_commands() -> None:
    inner = Answers("open[chimney]", "open[door]")
    policy = RepromptPolicy(inner)
    [proposal] = ask(policy)
    assert proposal.text == "open[door]"
    answer, request = inner.chats[1][1:]
    assert answer == Message(role="assistant", content="open[chimney]")
    assert request.role == "user"
    assert "open[door]\nopen[window]" in request.content
    assert (policy.num_reprompts, policy.num_kept) == (1, 0)


def test_after_the_last_try_the_illegal_answer_stays_and_is_counted() -> None:
    policy = RepromptPolicy(Answers("a[1]", "b[2]", "c[3]"), max_tries=2)
    [proposal] = ask(policy)
    assert proposal.text == "c[3]"
    assert (policy.num_reprompts, policy.num_kept) == (2, 1)


def test_everything_asked_is_counted() -> None:
    inner = Answers("open[door]", "no", "never", "again no", "open[window]", "open[door]")
    policy = RepromptPolicy(inner, max_tries=2)
    proposals = ask(policy, n=3)
    texts = [proposal.text for proposal in proposals]
    assert texts == ["open[door]", "open[window]", "open[door]"]
    cost = total_cost(proposals)
    assert asdict(cost) == policy.usage.to_dict()
    # Prompts of one message, of three twice, and of five.
    assert cost == RequestCost(requests=4, prompt_tokens=1200, generated_tokens=42)


def test_without_a_constraint_nothing_is_checked() -> None:
    inner = Answers("anything")
    assert ask(RepromptPolicy(inner), constraint=None)[0].text == "anything"
    assert len(inner.chats) == 1


def test_a_reprompt_that_is_too_long_leaves_the_answer() -> None:
    policy = RepromptPolicy(Answers("no", ContextOverflow("too long")))
    assert ask(policy)[0].text == "no"
    assert (policy.num_reprompts, policy.num_kept) == (0, 1)


def test_a_failing_reprompt_fails() -> None:
    with pytest.raises(PolicyFailure, match="gone"):
        ask(RepromptPolicy(Answers("no", PolicyFailure("gone"))))


def test_seeds_decide_the_seeds_of_reprompts() -> None:
    seeds = []
    for seed in (5, 5, 6):
        inner = Answers("no", "no", "no")
        ask(RepromptPolicy(inner, max_tries=2), seed=seed)
        seeds.append(inner.seeds)
    assert seeds[0] == seeds[1]
    assert seeds[0] != seeds[2]
    assert len(set(seeds[0])) == 3


@pytest.mark.parametrize("think", [True, False])
@pytest.mark.parametrize(
    ("text", "legal"),
    [
        ("Thought: let us see.\nAction: open[door]", True),
        ("open[door]", True),
        ("OPEN[door] please", True),
        ("open[Door]", False),
        ("Thought: only", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_legal_is_what_the_world_takes(text: str, legal: bool, think: bool, listed: bool) -> None:
    observation = (
        Observation(text="?", admissible=("open[door]", "open[window]"))
        if listed
        else Observation(text="?", pattern=r"(?i:open)\[(door|window)\]( please)?")
    )
    constraint = action_constraint(observation, PromptSpec(think=think, constrain=True))
    assert constraint is not None
    assert is_legal(text, constraint) is legal


def test_of_many_commands_the_closest_are_listed() -> None:
    commands = (*(f"go[room {number}]" for number in range(200)), "open[red door]")
    text = describe(Constraint(choices=commands, commands=commands), "open[reddoor]")
    assert "open[red door]" in text
    assert "(151 more)" in text
    assert len(text.splitlines()) == 53


def test_a_pattern_is_shown() -> None:
    assert "go\\[.*\\]" in describe(Constraint(regex=r"go\[.*\]"), "no")


def test_settings_name_both() -> None:
    policy = RepromptPolicy(Answers(), max_tries=3)
    assert policy.settings() == {
        "policy": "reprompt",
        "max_tries": 3,
        "answers": {"policy": "answers"},
    }
    with pytest.raises(ConfigError, match="max_tries must be >= 1, got 0"):
        RepromptPolicy(Answers(), max_tries=0)


def test_a_server_without_structured_outputs_can_be_constrained() -> None:
    async def run(url: str) -> list[Proposal]:
        policy = RepromptPolicy(OpenAIPolicy("m", base_url=url), max_tries=2)
        try:
            return await policy.propose(CHAT, 1, Sampling(), constraint=DOORS, seed=1)
        finally:
            await policy.close()

    with fault_server([completion("jump"), completion("Action: open[door]")]) as server:
        [proposal] = asyncio.run(run(server.base_url))
    assert proposal.text == "Action: open[door]"
    assert proposal.cost.requests == 2
    assert [len(request["messages"]) for request in server.requests] == [1, 3]
    assert all("structured_outputs" not in request for request in server.requests)

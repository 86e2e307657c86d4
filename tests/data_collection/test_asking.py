"""Questions that have no room beside the last step."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from data_collection.asking import Asking
from data_collection.expansion import propose_after_critique, propose_conditionally
from lit_qagent.agents.prompts import PromptSpec
from lit_qagent.core.errors import ContextOverflow
from lit_qagent.core.records import (
    Constraint,
    History,
    Message,
    Observation,
    Proposal,
    Sampling,
)
from lit_qagent.policies.base import Policy

PAGE = "A long page. " * 20
HISTORY = History(
    head=(Message(role="system", content="rules"), Message(role="user", content="task")),
    turns=(Message(role="assistant", content="go"), Message(role="user", content=PAGE)),
)


class TightPolicy(Policy):
    """Has room for so many characters, and answers with an action whatever it is asked."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.prompts: list[list[str]] = []

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        texts = [message.content for message in messages]
        if sum(map(len, texts)) > self.room:
            raise ContextOverflow("no room")
        self.prompts.append(texts)
        proposals = [Proposal(text=f"click[item {len(self.prompts)}]", num_tokens=1)] * n
        return self.charge(proposals, prompt_tokens=1, generated_tokens=n)

    def settings(self) -> dict[str, str]:
        return {}


def _asking(room: int) -> tuple[Asking, TightPolicy]:
    policy = TightPolicy(room)
    asking = Asking(
        policy=policy,
        critic=policy,
        prompt=PromptSpec(think=False, num_examples=0),
        sampling=Sampling(),
        seed=0,
        task_id="t",
        iteration=0,
    )
    return asking, policy


# Room for the head and a question, but not for the page; and for the page without a question.
@pytest.mark.parametrize("room", [len(PAGE), len(PAGE) + 20])
def test_a_question_that_finds_no_room_beside_the_last_step_is_not_asked(room: int) -> None:
    asking, policy = _asking(room)
    assert asyncio.run(asking.score(HISTORY, "click[item 3]", 0)) is None
    assert asyncio.run(asking.reflect(HISTORY, 0.0)) == ""
    assert asyncio.run(asking.critique(HISTORY, "click[item 3]", 0)) == ""
    assert policy.prompts == []
    assert (asking.cost.requests, asking.cost.unread_scores) == (0, 1)


def test_older_steps_make_room_for_a_question() -> None:
    asking, policy = _asking(len(PAGE) + 400)
    longer = History(head=HISTORY.head, turns=HISTORY.turns * 2)
    assert asyncio.run(asking.reflect(longer, 0.0)) == "click[item 1]"
    assert policy.prompts[0][-1].startswith(f"{PAGE}\n\nThe task is over")
    assert asking.cost.dropped_steps == 1


@pytest.mark.parametrize("expand", [propose_conditionally, propose_after_critique])
def test_a_note_that_would_drive_out_the_last_step_is_left_out(
    expand: Callable[..., Coroutine[Any, Any, dict[str, int]]],
) -> None:
    asking, policy = _asking(len(PAGE) + 20)
    found = asyncio.run(expand(asking, HISTORY, Observation(text=PAGE), 2))
    assert list(found) == ["click[item 1]", "click[item 2]"]
    assert policy.prompts == [["rules", "task", "go", PAGE]] * 2
    assert asking.cost.dropped_steps == 0


def test_a_last_step_that_has_no_room_by_itself_is_left_out_as_ever() -> None:
    asking, policy = _asking(len(PAGE))
    found = asyncio.run(propose_conditionally(asking, HISTORY, Observation(text=PAGE), 2))
    assert len(found) == 2
    assert policy.prompts == [["rules", "task"]] * 2
    assert asking.cost.dropped_steps == 2

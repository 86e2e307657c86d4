"""How a search asks the policy: seeds, costs, and notes that are shown but not kept."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from data_collection.iterations import Cost
from lit_qagent.agents.guided import Proposals, propose_actions
from lit_qagent.agents.prompts import PromptSpec, action_constraint
from lit_qagent.core.errors import ContextOverflow, PolicyFailure
from lit_qagent.core.records import (
    Constraint,
    History,
    Message,
    Observation,
    Proposal,
    Sampling,
)
from lit_qagent.core.seeds import derive_seed
from lit_qagent.policies.base import Policy

ASKING_VERSION = "1"
MAX_SCORE = 10
_SCORES = tuple(str(score) for score in range(1, MAX_SCORE + 1))
_NUMBER = re.compile(r"\b(10|[1-9])\b")
_REMARK_TOKENS = 96
_REQUESTS, _PROMPT, _GENERATED, _DROPPED, _CUT, _UNREAD = range(6)
_SCORE_TOKENS = 16

_NOTES = "Keep in mind what earlier tries at this very task have taught:"
_PROPOSED = "These moves are on the table already:"
_ANOTHER = "Make a move that differs from all of them, in the same form."
_CRITICISED = "A colleague wanted to make this move:"
_REMARK = "and this was said against it:"
_BETTER = "Make a better move, in the same form."
_ASK_CRITIQUE = (
    "Do not move yet. In at most two sentences, name the weakest point of this move and what a "
    "stronger one would do:"
)
_ASK_SCORE = (
    f"Do not move yet. How likely is this move to lead to full success, from 1 (hopeless) to "
    f"{MAX_SCORE} (certain)? Answer with the number alone. The move:"
)
_ASK_REFLECTION = (
    "The task is over and was not fully solved: it earned {reward:.2f} of 1. In at most two "
    "sentences, say what went wrong and what to do differently when starting over."
)


@dataclass(kw_only=True)
class Asking:
    """Asks on behalf of one iteration, and counts what it costs.

    Attributes:
        policy: Who proposes actions.
        critic: Who criticises, scores and reflects.
        prompt: How the world is shown.
        sampling: How to sample.
        seed: Seed of the collection.
        task_id: The task searched.
        iteration: The iteration.
        notes: What earlier iterations have taught; part of prompts, never of the tree's chat.
        counts: What was asked so far; `cost` as it grows, since a new record for each request
            would cost a tenth of a search.
    """

    policy: Policy
    critic: Policy
    prompt: PromptSpec
    sampling: Sampling
    seed: int
    task_id: str
    iteration: int
    notes: tuple[str, ...] = ()
    counts: list[int] = field(default_factory=lambda: [0] * 6)

    @property
    def cost(self) -> Cost:
        """What was asked so far."""
        requests, prompt_tokens, generated_tokens, dropped_steps, cut_actions, unread = self.counts
        return Cost(
            requests=requests,
            prompt_tokens=prompt_tokens,
            generated_tokens=generated_tokens,
            dropped_steps=dropped_steps,
            cut_actions=cut_actions,
            unread_scores=unread,
        )

    async def propose(
        self,
        history: History,
        observation: Observation,
        n: int,
        purpose: str,
        step: int,
        *,
        note: str = "",
        without: Sequence[str] = (),
    ) -> tuple[Proposal, ...]:
        """Return at least one proposed action.

        Args:
            history: The chat so far.
            observation: What the world said last.
            n: Samples asked for, in one request.
            purpose: What for; with ``step`` it tells the requests of an iteration apart.
            step: Count within the purpose.
            note: What to add to this prompt; left out if there is no room for it beside the last
                step.
            without: Actions that are left out where the world lists the legal ones.

        Raises:
            PolicyFailure: The policy gave no answer.
        """
        try:
            proposed = await propose_actions(
                self.policy,
                self._show(history, note),
                n,
                self.sampling,
                constraint=_leave_out(action_constraint(observation, self.prompt), without),
                seed=self._seed(purpose, step),
                min_steps=1 if note else 0,
            )
        except ContextOverflow:
            if not note:
                raise
            return await self.propose(history, observation, n, purpose, step, without=without)
        if not proposed.proposals:
            raise PolicyFailure(
                f"{type(self.policy).__name__} returned no action for {n} asked; "
                "a policy answers with at least one or raises PolicyFailure"
            )
        self._count(proposed)
        return proposed.proposals

    async def critique(self, history: History, action: str, step: int) -> str:
        """Return what speaks against an action; empty if there is no room for the question."""
        return await self._remark(history, f"{_ASK_CRITIQUE}\n{action}", "critique", step)

    async def reflect(self, history: History, reward: float) -> str:
        """Return what a finished, failed episode teaches, on one line.

        Empty if there is no room for the question.
        """
        return await self._remark(history, _ASK_REFLECTION.format(reward=reward), "reflect", 0)

    async def score(self, history: History, action: str, step: int) -> float | None:
        """Return the critic's score of an action in [0, 1].

        None if its answer is no score, or there is no room for the question; both are counted.
        """
        sampling = replace(self.sampling, max_tokens=_SCORE_TOKENS, stop=())
        constraint = Constraint(choices=_SCORES) if self.prompt.constrain else None
        text = await self._ask(
            history, f"{_ASK_SCORE}\n{action}", sampling, constraint, "score", step
        )
        found = _NUMBER.search(text)
        if found is None:
            self.counts[_UNREAD] += 1
            return None
        return (int(found.group()) - 1) / (MAX_SCORE - 1)

    async def _remark(self, history: History, question: str, purpose: str, step: int) -> str:
        sampling = replace(self.sampling, max_tokens=_REMARK_TOKENS, stop=())
        text = await self._ask(history, question, sampling, None, purpose, step)
        return " ".join(text.split())

    async def _ask(
        self,
        history: History,
        question: str,
        sampling: Sampling,
        constraint: Constraint | None,
        purpose: str,
        step: int,
    ) -> str:
        """Return the critic's answer; empty if the question has no room beside the last step.

        Then nobody is asked, as without the question any answer would be an action.
        """
        try:
            proposed = await propose_actions(
                self.critic,
                self._show(history, question),
                1,
                sampling,
                constraint=constraint,
                seed=self._seed(purpose, step),
                min_steps=1,
            )
        except ContextOverflow:
            return ""
        if not proposed.proposals:
            raise PolicyFailure(f"{type(self.critic).__name__} gave no answer to a {purpose}")
        self._count(proposed, is_action=False)
        return proposed.proposals[0].text

    def _show(self, history: History, note: str) -> History:
        """Put the notes behind the task and a note of the moment behind the last message."""
        if self.notes:
            lines = "\n".join(f"- {line}" for line in self.notes)
            last = _longer(history.head[-1], f"{_NOTES}\n{lines}")
            history = replace(history, head=(*history.head[:-1], last))
        if not note:
            return history
        if history.turns:
            return replace(history, turns=(*history.turns[:-1], _longer(history.turns[-1], note)))
        return replace(history, head=(*history.head[:-1], _longer(history.head[-1], note)))

    def _count(self, proposed: Proposals, *, is_action: bool = True) -> None:
        """Count one request; a remark that the token limit cuts is no action that was cut."""
        counts = self.counts
        counts[_DROPPED] += proposed.dropped_steps
        for answer in proposed.proposals:
            cost = answer.cost  # added up here: a new record for each would cost the search time
            counts[_REQUESTS] += cost.requests
            counts[_PROMPT] += cost.prompt_tokens
            counts[_GENERATED] += cost.generated_tokens
            counts[_CUT] += is_action and answer.finish_reason == "length"

    def _seed(self, purpose: str, step: int) -> int:
        return derive_seed(self.seed, self.task_id, self.iteration, purpose, step)


def siblings_note(actions: Sequence[str]) -> str:
    """Return the note that asks for an action unlike those before it."""
    listed = "\n".join(f"{number}. {action}" for number, action in enumerate(actions, start=1))
    return f"{_PROPOSED}\n{listed}\n{_ANOTHER}"


def critique_note(action: str, critique: str) -> str:
    """Return the note that asks for a better action than the one before."""
    return f"{_CRITICISED}\n{action}\n{_REMARK}\n{critique}\n{_BETTER}"


def _longer(message: Message, note: str) -> Message:
    return replace(message, content=f"{message.content}\n\n{note}")


def _leave_out(constraint: Constraint | None, actions: Sequence[str]) -> Constraint | None:
    """Return the constraint without some of its choices, unless none would be left."""
    if constraint is None or not constraint.choices or not actions:
        return constraint
    left = tuple(choice for choice in constraint.choices if choice not in actions)
    return Constraint(choices=left) if left else constraint

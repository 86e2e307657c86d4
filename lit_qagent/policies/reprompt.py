"""Keeps to the legal commands without a server's help: an answer beside them is asked for again."""

import asyncio
import difflib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lit_qagent.core.actions import canonical_action, parse_call, parse_command
from lit_qagent.core.errors import ConfigError, ContextOverflow
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling
from lit_qagent.core.seeds import derive_seed
from lit_qagent.policies.base import Policy, check_request

_MAX_LISTED = 50
_AGAIN = "Answer again in the same form, with one of them."


class RepromptPolicy(Policy):
    """Checks each answer of another policy and asks again, saying what is legal.

    For policies that cannot be held to a constraint token by token. It acts where
    ``prompt.constrain`` is true and passes everything else on. The other policy is asked freely;
    an answer whose command is not legal is shown to it together with the legal commands. After
    ``max_tries`` the illegal answer stays, costs a step in the world and is counted in `num_kept`.

    Unlike a constraint, this changes which actions are sampled: what is drawn again is drawn after
    another prompt. Log-probabilities of answers that were asked for again are left out.

    Args:
        policy: Who answers.
        max_tries: Re-prompts per answer, >= 1.

    Attributes:
        num_reprompts: Re-prompts sent.
        num_kept: Answers that were still illegal after the last re-prompt.
    """

    def __init__(self, policy: Policy, max_tries: int = 1) -> None:
        super().__init__()
        if max_tries < 1:
            raise ConfigError(f"RepromptPolicy.max_tries must be >= 1, got {max_tries}")
        self.policy = policy
        self.max_tries = max_tries
        self.usage = policy.usage  # whatever is asked, the other policy counts it
        self.max_num_seqs = policy.max_num_seqs
        self.num_reprompts = 0
        self.num_kept = 0

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        """Return n samples; with a constraint, those beside it were asked for again."""
        check_request(n, constraint)
        answers = await self.policy.propose(messages, n, sampling, seed=seed)
        if constraint is None:
            return answers
        repaired = (
            self._repair(
                answer,
                messages,
                sampling,
                constraint,
                None if seed is None else derive_seed(seed, "reprompt", number),
            )
            for number, answer in enumerate(answers)
        )
        return list(await asyncio.gather(*repaired))

    def settings(self) -> dict[str, Any]:
        """Return the number of tries and the other policy's settings."""
        return {
            "policy": "reprompt",
            "max_tries": self.max_tries,
            "answers": self.policy.settings(),
        }

    async def close(self) -> None:
        """Close the other policy."""
        await self.policy.close()

    async def _repair(
        self,
        answer: Proposal,
        messages: Sequence[Message],
        sampling: Sampling,
        constraint: Constraint,
        seed: int | None,
    ) -> Proposal:
        """Return an answer that is legal, or the last one."""
        chat = list(messages)
        for attempt in range(self.max_tries):
            if is_legal(answer.text, constraint):
                return answer
            chat += [
                Message(role="assistant", content=answer.text),
                Message(role="user", content=describe(constraint, answer.text)),
            ]
            try:
                answers = await self.policy.propose(
                    chat, 1, sampling, seed=None if seed is None else seed + attempt
                )
            except ContextOverflow:
                break  # the prompt itself had room, so the step can still be taken
            again = answers[0]
            self.num_reprompts += 1
            answer = replace(again, cost=answer.cost + again.cost, log_prob=None)
        self.num_kept += not is_legal(answer.text, constraint)
        return answer


def is_legal(text: str, constraint: Constraint) -> bool:
    """Tell whether a message's command is legal; thoughts are free."""
    command = parse_command(text)
    if command is None:
        return False
    if constraint.commands or constraint.choices:
        return _key(command) in map(_key, constraint.commands or constraint.choices)
    # The expression may be for a bare command or for a whole message with a thought.
    forms = (text.strip(), command, f"Thought: -\nAction: {command}")
    return any(re.fullmatch(constraint.regex or "", form) for form in forms)


def describe(constraint: Constraint, text: str) -> str:
    """Return the message that says what is legal; of many commands, those most like the answer."""
    commands = constraint.commands or constraint.choices
    if not commands:
        return (
            "That is not a legal command here. A legal answer matches this regular expression: "
            f"{constraint.regex}\n{_AGAIN.replace('one of them', 'a legal command')}"
        )
    shown: Sequence[str] = commands
    if len(commands) > _MAX_LISTED:
        answer = parse_command(text) or ""
        shown = difflib.get_close_matches(answer[:200], commands, n=_MAX_LISTED, cutoff=0.0)
    lines = "\n".join(shown)
    more = len(commands) - len(shown)
    rest = f"\n({more} more)" if more else ""
    return f"That is not a legal command here. The legal ones are:\n{lines}{rest}\n{_AGAIN}"


def _key(command: str) -> object:
    """Return what makes two commands the same to a world: verb and argument, or the words."""
    return parse_call(command) or canonical_action(command)

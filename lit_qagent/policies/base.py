"""Who proposes actions: one asynchronous method, any LLM behind it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lit_qagent.core.errors import ConfigError, ContextOverflow
from lit_qagent.core.records import (
    Constraint,
    Message,
    Proposal,
    RequestCost,
    Sampling,
    Usage,
)


class Policy(ABC):
    """Samples actions for a chat; many calls may be in flight at once in one event loop.

    Attributes:
        usage: What all requests have cost so far.
        max_num_seqs: Sequences generated at the same time; None if that is not known.
    """

    max_num_seqs: int | None = None

    def __init__(self) -> None:
        self.usage = Usage()

    @abstractmethod
    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        """Return n sampled actions for one prompt, in one request.

        What it has cost stands on the actions (`Proposal.cost`) and is counted in `usage`; `charge`
        does both.

        Args:
            messages: The chat, ending with a user message.
            n: Number of samples, >= 1.
            sampling: Temperature, nucleus, token limit and stop strings.
            constraint: What an action may look like; None leaves it free.
            seed: Same seed and same prompt give the same samples where the policy can promise it.

        Raises:
            ConfigError: n is below 1, or the choices are empty strings or repeat (`check_request`).
            ContextOverflow: The prompt leaves no room for an action.
            PolicyFailure: No answer after the policy's retries.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what identifies this policy in manifests and reports; never a secret."""

    def charge(
        self, proposals: Sequence[Proposal], *, prompt_tokens: int, generated_tokens: int
    ) -> list[Proposal]:
        """Count one request that was answered, and state its cost on its first proposal.

        Args:
            proposals: What the request has brought.
            prompt_tokens: Tokens of its prompt.
            generated_tokens: Tokens generated for it, those of answers nobody uses included.
        """
        cost = RequestCost(
            requests=1, prompt_tokens=prompt_tokens, generated_tokens=generated_tokens
        )
        self.usage.add(cost)
        first = [replace(proposal, cost=proposal.cost + cost) for proposal in proposals[:1]]
        return [*first, *proposals[1:]]

    async def close(self) -> None:  # noqa: B027 (most policies hold nothing to close)
        """Release what the policy holds; it is not used afterwards."""


def check_request(n: int, constraint: Constraint | None) -> None:
    """Refuse what no policy can answer; every `Policy.propose` begins with it.

    Raises:
        ConfigError: n is below 1, or a choice is empty or given twice.
    """
    if n < 1:
        raise ConfigError(f"a policy is asked for at least one action, got n={n}")
    choices = constraint.choices if constraint else ()
    if any(not choice.strip() for choice in choices):
        raise ConfigError(
            f"Constraint.choices has an empty choice among {len(choices)}: {list(choices)!r}; "
            "the world must list commands that can be written"
        )
    if len(set(choices)) < len(choices):
        twice = sorted({choice for choice in choices if choices.count(choice) > 1})
        raise ConfigError(
            f"Constraint.choices lists {twice!r} more than once; the world must list each "
            "command once"
        )


def copies(proposal: Proposal, n: int) -> list[Proposal]:
    """Return n of an answer that was generated once, so only the first bears its cost."""
    return [proposal, *[replace(proposal, cost=RequestCost())] * (n - 1)]


def check_room(prompt_tokens: int, action_tokens: int, max_model_len: int) -> None:
    """Refuse a prompt after which the longest action would not fit, instead of a shorter action.

    Raises:
        ContextOverflow: Both together exceed the context.
    """
    if prompt_tokens + action_tokens > max_model_len:
        raise ContextOverflow(
            f"the prompt has {prompt_tokens} tokens and an action may take {action_tokens}, but "
            f"max_model_len is {max_model_len}; raise it or lower sampling.max_tokens"
        )

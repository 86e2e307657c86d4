"""Who proposes actions: one asynchronous method, any LLM behind it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from lit_qagent.core.records import Constraint, Message, Proposal, Sampling, Usage


class Policy(ABC):
    """Samples actions for a chat; many calls may be in flight at once in one event loop."""

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

        Args:
            messages: The chat, ending with a user message.
            n: Number of samples, >= 1.
            sampling: Temperature, nucleus, token limit and stop strings.
            constraint: What an action may look like; None leaves it free.
            seed: Same seed and same prompt give the same samples where the policy can promise it.

        Raises:
            ContextOverflow: The prompt leaves no room for an action.
            PolicyFailure: No answer after the policy's retries.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what identifies this policy in manifests and reports; never a secret."""

    async def close(self) -> None:  # noqa: B027 (most policies hold nothing to close)
        """Release what the policy holds; it is not used afterwards."""

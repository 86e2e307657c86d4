"""The actor that owns a policy, such as one vLLM engine on one GPU."""

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from data_collection.executors.recipe import build_policy, enter_folder
from lit_qagent.core.errors import ContextOverflow, PolicyFailure, QAgentError
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling
from lit_qagent.policies.base import Policy

FAILURES_UNTIL_REBUILT = 8
_CLOSE_LIMIT_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Started:
    """What an actor says when it is ready.

    Attributes:
        settings: Of the policy or the world that it has built.
        max_num_seqs: Sequences that the policy generates at the same time; None if it has no such
            number, or the actor no policy.
        where: Host and process.
    """

    settings: Mapping[str, Any]
    max_num_seqs: int | None = None
    where: str = ""


def whereabouts() -> str:
    """Return host and process, for messages."""
    return f"{socket.gethostname()}, process {os.getpid()}"


class EngineActor:
    """Answers the requests of all search actors with one policy; many at the same time.

    Errors of this project are returned, not raised, so that the caller gets them unchanged. A
    policy that fails many times in a row is closed and built again: an engine that has died stays
    dead otherwise.

    Args:
        recipe: What to build the policy from.
        folder: Where relative paths start.
    """

    def __init__(self, recipe: Mapping[str, Any], folder: str) -> None:
        enter_folder(folder)
        self._recipe = recipe
        self._policy: Policy | None = None
        self._failures = 0

    async def start(self) -> Started | QAgentError:
        """Build the policy; a model is loaded at the first request."""
        try:
            policy = self._built()
            size = getattr(policy, "max_num_seqs", None)
            return Started(
                settings=policy.settings(),
                max_num_seqs=size if isinstance(size, int) else None,
                where=whereabouts(),
            )
        except QAgentError as error:
            return error

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        constraint: Constraint | None,
        seed: int | None,
    ) -> list[Proposal] | QAgentError:
        """Return what the policy answers, or with what error it failed."""
        try:
            policy = self._built()
            answer = await policy.propose(messages, n, sampling, constraint=constraint, seed=seed)
        except QAgentError as error:
            if isinstance(error, PolicyFailure) and not isinstance(error, ContextOverflow):
                await self._note_failure()
            return error
        self._failures = 0
        return answer

    async def close(self) -> None:
        """Close the policy."""
        if self._policy is not None:
            await self._policy.close()

    def _built(self) -> Policy:
        if self._policy is None:
            self._policy = build_policy(self._recipe)
        return self._policy

    async def _note_failure(self) -> None:
        self._failures += 1
        policy = self._policy
        if policy is not None and self._failures >= FAILURES_UNTIL_REBUILT:
            self._policy, self._failures = None, 0
            with suppress(TimeoutError):
                await asyncio.wait_for(policy.close(), _CLOSE_LIMIT_S)

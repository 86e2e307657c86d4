"""A policy that asks a fault server, with waits that take no time."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from lit_qagent.core.records import Constraint, Message, Proposal, Sampling
from lit_qagent.policies import openai_limits
from lit_qagent.policies.openai import OpenAIPolicy
from tests.fault_server import (
    Answer,
    FaultServer,
    fault_server,
)

CHAT = (Message(role="system", content="Be short."), Message(role="user", content="Hello"))
KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits between attempts, in seconds, asked for but not slept; the limits' clock goes on."""
    asked: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        asked.append(seconds)
        await sleep(0)

    monkeypatch.setattr(openai_limits, "monotonic", lambda: sum(asked))
    monkeypatch.setattr(asyncio, "sleep", note)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return asked


def ask(
    answers: Sequence[Answer],
    n: int = 1,
    *,
    sampling: Sampling | None = None,
    constraint: Constraint | None = None,
    seed: int | None = None,
    **options: Any,  # noqa: ANN401 (the policy's own)
) -> tuple[list[Proposal], FaultServer, OpenAIPolicy]:
    with fault_server(answers) as server:
        policy = OpenAIPolicy("a-model", base_url=server.base_url, **options)

        async def run() -> list[Proposal]:
            try:
                return await policy.propose(
                    CHAT, n, sampling or Sampling(), constraint=constraint, seed=seed
                )
            finally:
                await policy.close()

        return asyncio.run(run()), server, policy

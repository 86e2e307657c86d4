"""A chat of two messages, and one request to a policy."""

import asyncio

from lit_qagent.core.records import Constraint, Message, Proposal, Sampling
from lit_qagent.policies.vllm import VLLMPolicy


def chat(text: str) -> tuple[Message, ...]:
    return (
        Message(role="system", content="You answer in one short sentence."),
        Message(role="user", content=text),
    )


def propose(
    policy: VLLMPolicy,
    text: str,
    n: int,
    sampling: Sampling,
    *,
    constraint: Constraint | None = None,
    seed: int | None = 0,
) -> list[Proposal]:
    return asyncio.run(policy.propose(chat(text), n, sampling, constraint=constraint, seed=seed))

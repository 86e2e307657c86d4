"""What integration tests share: the small model, and one engine for the whole session."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from lit_qagent.policies.smollm2 import small_model_folder
from lit_qagent.policies.vllm import VLLMPolicy


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct; its first use on a machine downloads and converts."""
    return small_model_folder()


@pytest.fixture(scope="session")
def engine_policy(smollm2: Path) -> Iterator[VLLMPolicy]:
    """One real engine for all tests; it starts when a test first proposes."""
    policy = VLLMPolicy(str(smollm2), max_model_len=1024, max_num_seqs=32, kv_cache_gb=0.25)
    yield policy
    asyncio.run(policy.close())

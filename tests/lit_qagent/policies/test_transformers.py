import asyncio
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from lit_qagent.core.errors import ConfigError, ContextOverflow, ModelError, PolicyFailure
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling, total_cost
from lit_qagent.policies.chat import ChatRenderer, load_renderer
from lit_qagent.policies.transformers import TransformersPolicy
from lit_qagent.policies.transformers_generation import GumbelNoise, score_choices
from tests.tiny_model import save_tiny_model

CHAT = (Message(role="system", content="Walk."), Message(role="user", content="A door."))
CHOICES = ("go", "open[door]", "look")


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def policy(tiny_folder: Path) -> Iterator[TransformersPolicy]:
    made = TransformersPolicy(str(tiny_folder), dtype="float32", device="cpu", max_model_len=256)
    yield made
    asyncio.run(made.close())


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny_folder)


@pytest.fixture(scope="module")
def renderer(tiny_folder: Path) -> ChatRenderer:
    return load_renderer(str(tiny_folder))


def propose(
    policy: TransformersPolicy,
    n: int,
    sampling: Sampling,
    *,
    constraint: Constraint | None = None,
    seed: int | None = 0,
) -> list[Proposal]:
    return asyncio.run(policy.propose(CHAT, n, sampling, constraint=constraint, seed=seed))


def naive_log_prob(model: PreTrainedModel, prompt: list[int], ids: list[int]) -> float:
    """One pass over the whole sequence."""
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + ids])).logits[0].log_softmax(dim=-1)
    return sum(float(logits[len(prompt) + i - 1, token]) for i, token in enumerate(ids))


def test_scores_equal_a_pass_over_each_choice(
    model: PreTrainedModel, renderer: ChatRenderer
) -> None:
    prompt = renderer.prompt_ids(CHAT)
    choices = [f"go[{number}{'x' * (number % 5)}]" for number in range(35)]  # two batches
    ids = [renderer.action_ids(choice) for choice in choices]
    expected = [naive_log_prob(model, prompt, choice) for choice in ids]
    torch.testing.assert_close(
        score_choices(model, prompt, ids), torch.tensor(expected), atol=1e-4, rtol=1e-5
    )


def test_choices_are_drawn_in_proportion_to_their_probability(
    policy: TransformersPolicy, model: PreTrainedModel, renderer: ChatRenderer
) -> None:
    prompt = renderer.prompt_ids(CHAT)
    log_probs = [naive_log_prob(model, prompt, renderer.action_ids(c)) for c in CHOICES]
    temperature = 20.0  # the choices differ in length, so by tens of nats
    weights = [math.exp((value - max(log_probs)) / temperature) for value in log_probs]
    proposals = propose(
        policy, 4000, Sampling(temperature=temperature), constraint=Constraint(choices=CHOICES)
    )
    counts = Counter(p.text for p in proposals)
    for choice, weight in zip(CHOICES, weights, strict=True):
        # At most 0.5 / sqrt(4000) = 0.008 standard deviation.
        assert counts[choice] / 4000 == pytest.approx(weight / sum(weights), abs=0.035)
    assert proposals[0].log_prob == pytest.approx(
        log_probs[CHOICES.index(proposals[0].text)], abs=1e-3
    )


def test_greedy_takes_the_likeliest_choice_and_top_p_leaves_out_the_rest(
    policy: TransformersPolicy, model: PreTrainedModel, renderer: ChatRenderer
) -> None:
    prompt = renderer.prompt_ids(CHAT)
    best = max(CHOICES, key=lambda c: naive_log_prob(model, prompt, renderer.action_ids(c)))
    constraint = Constraint(choices=CHOICES)
    greedy = propose(policy, 3, Sampling(temperature=0), constraint=constraint)
    assert {p.text for p in greedy} == {best}
    nucleus = propose(policy, 50, Sampling(temperature=20.0, top_p=0.01), constraint=constraint)
    assert {p.text for p in nucleus} == {best}


def test_gumbel_noise_turns_the_largest_score_into_a_sample() -> None:
    scores = torch.tensor([0.5, 0.3, 0.2]).log().repeat(20_000, 1)
    noisy = GumbelNoise(torch.Generator().manual_seed(0))(torch.empty(0), scores)
    shares = noisy.argmax(dim=-1).bincount() / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.015, rtol=0)


def test_a_seed_repeats_samples_and_leaves_the_global_state_alone(
    policy: TransformersPolicy,
) -> None:
    sampling = Sampling(max_tokens=12)
    before = torch.random.get_rng_state()
    first = propose(policy, 3, sampling, seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert propose(policy, 3, sampling, seed=4) == first
    assert propose(policy, 3, sampling, seed=5) != first
    assert len({p.text for p in first}) == 3


def test_greedy_text_equals_plain_generation(
    policy: TransformersPolicy, model: PreTrainedModel, renderer: ChatRenderer
) -> None:
    ids = renderer.prompt_ids(CHAT)
    output = cast(Any, model).generate(torch.tensor([ids]), do_sample=False, max_new_tokens=10)
    row = output[0, len(ids) :].tolist()
    proposals = propose(policy, 2, Sampling(temperature=0, max_tokens=10))
    expected = renderer.tokenizer.decode(row, skip_special_tokens=True)
    assert [p.text for p in proposals] == [expected] * 2
    assert [p.num_tokens for p in proposals] == [len(row)] * 2
    assert total_cost(proposals).prompt_tokens == len(ids)


def test_stop_strings_end_an_action_and_are_not_part_of_it(policy: TransformersPolicy) -> None:
    free = propose(policy, 4, Sampling(max_tokens=20), seed=9)
    assert {p.finish_reason for p in free} == {"length"}
    stop = next(letter for letter in free[0].text if letter.isascii())
    cut = propose(policy, 4, Sampling(max_tokens=20, stop=(stop,)), seed=9)
    assert cut[0].text == free[0].text[: free[0].text.index(stop)]
    assert cut[0].finish_reason == "stop"
    assert cut[0].num_tokens < 20
    assert not any(stop in p.text for p in cut)


def test_usage_counts_one_prompt_per_request(tiny_folder: Path) -> None:
    policy = TransformersPolicy(str(tiny_folder), dtype="float32", device="cpu")
    proposals = propose(policy, 3, Sampling(max_tokens=5))
    assert policy.usage.to_dict() == asdict(total_cost(proposals))
    assert policy.usage.requests == 1
    assert policy.usage.generated_tokens == sum(p.num_tokens for p in proposals)
    asyncio.run(policy.close())


def test_what_it_cannot_do_is_refused(policy: TransformersPolicy) -> None:
    with pytest.raises(PolicyFailure, match="cannot hold an action to a regular expression"):
        propose(policy, 1, Sampling(), constraint=Constraint(regex="a|b"))
    with pytest.raises(ConfigError, match="n=0"):
        propose(policy, 0, Sampling())
    with pytest.raises(ContextOverflow, match="max_model_len is 256"):
        propose(policy, 1, Sampling(max_tokens=250))
    with pytest.raises(ContextOverflow, match="an action may take 303"):
        propose(policy, 1, Sampling(), constraint=Constraint(choices=("a", "x" * 301)))
    with pytest.raises(ConfigError, match="max_model_len must be positive, got 0"):
        TransformersPolicy("a-model", max_model_len=0)


def test_a_model_that_cannot_be_loaded_is_said(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        propose(TransformersPolicy(str(tmp_path / "none")), 1, Sampling())
    wrong = TransformersPolicy(str(tiny_folder), device="nowhere")
    with pytest.raises(ModelError, match="cannot be loaded to 'nowhere'"):
        propose(wrong, 1, Sampling())

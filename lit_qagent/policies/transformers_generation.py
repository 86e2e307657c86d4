"""Sampling from a transformers model: free text, or one of some choices.

Letters in shapes: n samples, C choices, T tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from lit_qagent.core.records import Proposal, Sampling

_CHOICES_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What to sample.

    Attributes:
        prompt_ids: At least two tokens.
        n: Number of samples.
        sampling: How.
        seed: None draws another seed each time.
    """

    prompt_ids: Sequence[int]
    n: int
    sampling: Sampling
    seed: int | None


class _Ending(NamedTuple):
    """How a generated row ended."""

    num_tokens: int
    text: str
    finish_reason: str


class GumbelNoise(LogitsProcessor):
    """Adds Gumbel noise, so that the largest logit is a sample from the softmax of the logits.

    It makes sampling independent of torch's global random state, which `generate` would use.

    Args:
        generator: Where the noise comes from.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return noisy scores; both are [n, V]."""
        exponential = torch.empty_like(scores, dtype=torch.float32)
        exponential.exponential_(generator=self.generator)
        return scores.float() - exponential.log()


def sampler(sampling: Sampling, seed: int | None, device: torch.device) -> LogitsProcessorList:
    """Return processors after which the largest score of a row is the sample."""
    steps = LogitsProcessorList()
    if sampling.temperature == 0:
        return steps
    generator = torch.Generator(device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    steps.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    steps.append(GumbelNoise(generator))
    return steps


@torch.inference_mode()
def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, request: Request
) -> list[Proposal]:
    """Return n free samples that share one pass over the prompt."""
    prompt = torch.tensor([request.prompt_ids], device=model.device).repeat(request.n, 1)  # [n, T]
    cache = _prefill(model, request.prompt_ids[:-1])
    cache.batch_repeat_interleave(request.n)
    stop: dict[str, Any] = {}
    if request.sampling.stop:
        stop = {"stop_strings": list(request.sampling.stop), "tokenizer": tokenizer}
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    # Typed as any module's attribute, as PreTrainedModel's own hints end at nn.Module.
    output = cast(Any, model).generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        past_key_values=cache,
        max_new_tokens=request.sampling.max_tokens,
        do_sample=False,
        logits_processor=sampler(request.sampling, request.seed, model.device),
        pad_token_id=pad,
        **stop,
    )
    rows = output[:, prompt.shape[1] :].tolist()
    ends = _end_token_ids(model, tokenizer)
    endings = [_read_row(row, tokenizer, request.sampling.stop, ends, pad) for row in rows]
    return [
        Proposal(
            text=ending.text,
            num_tokens=ending.num_tokens,
            finish_reason=ending.finish_reason,
        )
        for ending in endings
    ]


@torch.inference_mode()
def choose(
    model: PreTrainedModel,
    request: Request,
    choices: Sequence[str],
    choice_ids: Sequence[Sequence[int]],
) -> list[Proposal]:
    """Return n draws among choices, each with the log-probability of its tokens."""
    log_probs = score_choices(model, request.prompt_ids, choice_ids)  # [C]
    scores = log_probs.repeat(request.n, 1)  # [n, C]
    draw = cast(Any, sampler(request.sampling, request.seed, model.device))
    picks = draw(torch.empty_like(scores, dtype=torch.long), scores).argmax(dim=-1)  # [n]
    return [
        Proposal(
            text=choices[pick],
            num_tokens=len(choice_ids[pick]),
            log_prob=float(log_probs[pick]),
        )
        for pick in picks.tolist()
    ]


@torch.inference_mode()
def score_choices(
    model: PreTrainedModel, prompt_ids: Sequence[int], choice_ids: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Return log p of each choice after the prompt, [C], float32.

    The same as a forward pass over prompt and choice for each, but the prompt is read once, and
    choices are read in batches of 32.
    """
    parts = [
        _score_batch(model, prompt_ids, choice_ids[start : start + _CHOICES_AT_ONCE])
        for start in range(0, len(choice_ids), _CHOICES_AT_ONCE)
    ]
    return torch.cat(parts)


def _score_batch(
    model: PreTrainedModel, prompt_ids: Sequence[int], choice_ids: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Return log p of each choice, [C]."""
    cache = _prefill(model, prompt_ids[:-1])
    cache.batch_repeat_interleave(len(choice_ids))
    # Each row predicts its choice from the prompt's last token on; padding is to the right, so
    # no real token attends to it.
    rows = [torch.tensor([prompt_ids[-1], *ids[:-1]]) for ids in choice_ids]
    inputs = pad_sequence(rows, batch_first=True).to(model.device)  # [C, T]
    targets = pad_sequence([torch.tensor(ids) for ids in choice_ids], batch_first=True)
    lengths = torch.tensor([len(ids) for ids in choice_ids])
    real = (torch.arange(inputs.shape[1]) < lengths[:, None]).to(model.device)  # [C, T]
    logits = model(input_ids=inputs, past_key_values=cache, use_cache=True).logits  # [C, T, V]
    log_probs: torch.Tensor = logits.float().log_softmax(dim=-1)
    chosen = log_probs.gather(-1, targets.to(model.device)[..., None])[..., 0]  # [C, T]
    return (chosen * real).sum(dim=-1)


def _prefill(model: PreTrainedModel, ids: Sequence[int]) -> DynamicCache:
    """Return the keys and values of a prompt, read once."""
    cache = DynamicCache(config=model.config)
    model(
        input_ids=torch.tensor([ids], device=model.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return cache


def _end_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return every token that ends an answer."""
    listed = getattr(model.generation_config, "eos_token_id", None)
    if listed is None:
        listed = tokenizer.eos_token_id
    return set(listed) if isinstance(listed, list) else {listed}


def _read_row(
    row: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    stop: Sequence[str],
    ends: set[int],
    pad: int,
) -> _Ending:
    """Return a row's text without its ending, and how many tokens were generated."""
    length = next((i for i, token in enumerate(row) if token in ends or token == pad), len(row))
    text = str(tokenizer.decode(list(row[:length]), skip_special_tokens=True))
    found = [position for position in map(text.find, stop) if position >= 0]
    if found:
        return _Ending(num_tokens=length, text=text[: min(found)], finish_reason="stop")
    ended = length < len(row)
    return _Ending(
        num_tokens=length + ended, text=text, finish_reason="stop" if ended else "length"
    )

import asyncio
import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lit_qagent.core.records import Constraint, Message, Sampling
from lit_qagent.policies.chat import load_renderer
from lit_qagent.policies.vllm import VLLMPolicy, encode_choices
from tests.reference import choice_probabilities

pytestmark = pytest.mark.integration  # importing vLLM takes seconds

CHOICES = [[5, 6, 2], [5, 7, 8, 2], [5, 6, 9, 2]]


def _update(**changes: Any) -> SimpleNamespace:  # noqa: ANN401 (rows of vLLM's batch update)
    return SimpleNamespace(**({"removed": [], "added": [], "moved": []} | changes))


def _params(choices: list[list[int]] | None) -> SimpleNamespace:
    return SimpleNamespace(extra_args={"choice_ids": choices} if choices else None)


def _kept(logits: torch.Tensor) -> list[list[int]]:
    return [row.isfinite().nonzero().flatten().tolist() for row in logits]


@pytest.mark.parametrize(
    ("written", "allowed"),
    [([], [5]), ([5], [6, 7]), ([5, 6], [2, 9]), ([5, 7], [8]), ([5, 6, 9], [2]), ([4], [])],
)
def test_allowed_tokens_lead_to_a_choice(written: list[int], allowed: list[int]) -> None:
    from lit_qagent.policies.vllm_choices import allowed_tokens

    assert allowed_tokens(CHOICES, written) == allowed


def test_rows_are_followed_as_requests_enter_move_and_leave() -> None:
    from vllm.v1.sample.logits_processor import MoveDirectionality

    from lit_qagent.policies.vllm_choices import ChoiceProcessor

    processor: Any = ChoiceProcessor(None, torch.device("cpu"), False)
    written: list[int] = []
    added = [(0, _params(CHOICES), [1], written), (1, _params(None), [1], [])]
    processor.update_state(_update(added=added))
    everything = list(range(10))
    assert _kept(processor.apply(torch.zeros(2, 10))) == [[5], everything]
    written.append(5)  # vLLM extends the list it handed over
    processor.update_state(_update(moved=[(0, 1, MoveDirectionality.SWAP)]))
    assert _kept(processor.apply(torch.zeros(2, 10))) == [everything, [6, 7]]
    processor.update_state(_update(moved=[(1, 0, MoveDirectionality.UNIDIRECTIONAL)]))
    assert _kept(processor.apply(torch.zeros(2, 10))) == [[6, 7], everything]
    processor.update_state(_update(removed=[0]))
    assert _kept(processor.apply(torch.zeros(2, 10))) == [everything, everything]


def test_choices_are_drawn_as_the_model_itself_would_write_them(
    engine_policy: VLLMPolicy, smollm2: Path
) -> None:
    choices = ("click[blue]", "click[yellow]", "click[Buy Now]", "click[Buy Now and pay]")
    chat = (
        Message(role="system", content="You buy what is asked for, one command at a time."),
        Message(role="user", content="I need a blue rug. color: yellow, blue"),
    )
    sampling = Sampling(temperature=2.0, max_tokens=16)
    num_draws = 300
    drawn = asyncio.run(
        engine_policy.propose(
            chat, num_draws, sampling, constraint=Constraint(choices=choices), seed=3
        )
    )
    counts = Counter(proposal.text for proposal in drawn)
    assert set(counts) <= set(choices)
    renderer = load_renderer(str(smollm2))
    expected = choice_probabilities(
        smollm2,
        renderer.prompt_ids(chat),
        encode_choices(renderer, Constraint(choices=choices)),
        temperature=2.0,
    )
    assert sum(expected) == pytest.approx(1, abs=1e-4)
    for choice, probability in zip(choices, expected, strict=True):
        spread = math.sqrt(probability * (1 - probability) / num_draws)
        # five standard deviations, and what bf16 in another order of operations may change
        assert counts[choice] / num_draws == pytest.approx(probability, abs=5 * spread + 0.03)

"""What is sampled of a draw: distinct, shortest, and the same distribution as the whole texts."""

import random
from collections.abc import Sequence
from itertools import pairwise
from math import isclose, prod

import pytest

from lit_qagent.policies.choice_draw import plan_draw

END = 99


@pytest.mark.parametrize(
    ("choices", "lead", "telling"),
    [
        ([[1, 2, 5, 3, END], [1, 2, 6, 7, END]], [1, 2], [[5], [6]]),
        ([[1, 5, END], [1, 5, 6, END], [1, 7, 8, END]], [1], [[5, END], [5, 6], [7]]),
        ([[5, END], [6, END], [5, END]], [], [[5], [6], [5]]),
        # 5 ends the first and begins the second, so that it cannot end a draw.
        ([[5, END], [6, 5, 7, END], [6, 5, END]], [], [[5, END], [6, 5, 7, END], [6, 5, END]]),
    ],
)
def test_only_what_tells_choices_apart_is_drawn(
    choices: list[list[int]], lead: list[int], telling: list[list[int]]
) -> None:
    draw = plan_draw(choices)
    assert (draw.lead, draw.telling) == (lead, telling)
    assert [draw.find(ids) for ids in draw.telling] == [choices.index(ids) for ids in choices]
    assert draw.find([77]) is None
    assert all(ids[-1] in draw.stops for ids in telling)
    assert not any(token in draw.stops for ids in telling for token in ids[:-1])


def test_every_choice_keeps_its_probability() -> None:
    rng = random.Random(4)
    for _ in range(200):
        lengths = [rng.randint(1, 5) for _ in range(rng.randint(2, 6))]
        drawn = {tuple(rng.choice([1, 2, 3]) for _ in range(length)) for length in lengths}
        choices = [[*ids, END] for ids in sorted(drawn)]
        if len(choices) < 2:
            continue
        draw = plan_draw(choices)
        for whole, short in zip(choices, draw.telling, strict=True):
            longer = _probability(choices, whole)
            assert isclose(_probability(draw.telling, short, draw.lead), longer)


def _probability(choices: list[list[int]], ids: list[int], lead: Sequence[int] = ()) -> float:
    """Return the chance of drawing a choice token by token, from weights of whole prefixes."""
    odds = []
    for length in range(len(ids)):
        fitting = [other for other in choices if other[:length] == ids[:length]]
        allowed = {other[length] for other in fitting if len(other) > length}
        weight = {token: _weight([*lead, *ids[:length], token]) for token in allowed}
        odds.append(weight[ids[length]] / sum(weight.values()))
    return prod(odds)


def _weight(prefix: list[int]) -> float:
    return 1 + sum(7 * a + 3 * b for a, b in pairwise([1, *prefix])) % 5

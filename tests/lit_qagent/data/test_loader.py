"""The loader goes on at exactly the batch at which it was interrupted."""

from itertools import islice

import torch

from lit_qagent.data.batch import PairBatch, PairTokens, collate_pairs
from lit_qagent.data.loader import EpochSampler, ResumableLoader
from lit_qagent.data.rendering import TokenSequence

PAIRS = [
    PairTokens(TokenSequence([1], [2]), TokenSequence([1], [3]), 0.0, 0.0, depth=number)
    for number in range(7)
]


def make_loader() -> ResumableLoader:
    return ResumableLoader(
        PAIRS, batch_size=2, seed=5, collate_fn=lambda pairs: collate_pairs(pairs, "none")
    )


def pair_numbers(batches: list[PairBatch]) -> list[list[int]]:
    """The pairs in each batch; their depth is their number here."""
    return [batch.depth.tolist() for batch in batches]


def test_an_order_depends_on_seed_and_epoch_only() -> None:
    first, again, other = EpochSampler(50, 1), EpochSampler(50, 1), EpochSampler(50, 2)
    order = list(first)
    again.set_epoch(1)

    assert sorted(order) == list(range(50))
    assert list(first) == order
    assert list(other) != order
    assert list(again) != order
    again.set_epoch(0)
    assert list(again) == order


def test_a_restored_loader_gives_the_rest_and_then_a_whole_epoch() -> None:
    uninterrupted = make_loader()
    every_batch = pair_numbers(list(uninterrupted))
    interrupted, restored = make_loader(), make_loader()
    given = pair_numbers(list(islice(iter(interrupted), 2)))

    restored.load_state_dict(interrupted.state_dict())
    rest = pair_numbers(list(restored))

    assert interrupted.state_dict() == {"given": 2}
    assert given + rest == every_batch
    assert pair_numbers(list(restored)) == every_batch


def test_at_the_end_of_an_epoch_the_next_starts_at_its_first_batch() -> None:
    loader = make_loader()
    list(loader)

    assert len(loader) == 4
    assert loader.state_dict() == {"given": 0}


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()

    list(make_loader())

    assert torch.equal(torch.get_rng_state(), before)

"""The loader goes on at exactly the batch at which training was interrupted."""

from itertools import islice

import pytest
import torch

from lit_qagent.data.batch import PairBatch, PairTokens
from lit_qagent.data.loader import HeldOutLoader, PairLoader
from lit_qagent.data.planning import BatchPlan, Limits
from lit_qagent.data.rendering import TokenSequence

PAIRS = [
    PairTokens(TokenSequence([1], [2]), TokenSequence([1], [3]), 0.0, 0.0, depth=number)
    for number in range(7)
]


def make_loader(
    *, accumulate: int = 1, rank: int = 0, world_size: int = 1, trained: int | None = None
) -> PairLoader:
    plan = BatchPlan(
        PAIRS,
        [[i] for i in range(7)],
        limits=Limits("none", 2),
        seed=5,
        multiple_of=world_size,
    )
    return PairLoader(
        PAIRS,
        plan,
        accumulate=accumulate,
        rank=rank,
        world_size=world_size,
        num_trained=None if trained is None else lambda: trained,
    )


def pair_numbers(batches: list[PairBatch]) -> list[list[int]]:
    """The pairs in each batch; their depth is their number here."""
    return [batch.depth.tolist() for batch in batches]


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


def test_a_batch_that_was_given_and_not_trained_on_is_given_again() -> None:
    interrupted = make_loader(trained=1)
    given = pair_numbers(list(islice(iter(interrupted), 2)))
    restored = make_loader()

    restored.load_state_dict(interrupted.state_dict())

    assert pair_numbers(list(restored))[0] == given[1]


def test_at_the_end_of_an_epoch_the_next_starts_at_its_first_batch() -> None:
    loader = make_loader()
    list(loader)

    assert len(loader) == 4
    assert loader.state_dict() == {"given": 0}


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()

    list(make_loader())

    assert torch.equal(torch.get_rng_state(), before)


def test_processes_take_turns_and_together_take_everything() -> None:
    one = [pair for batch in pair_numbers(list(make_loader())) for pair in batch]
    ranks = [pair_numbers(list(make_loader(rank=rank, world_size=2))) for rank in (0, 1)]

    assert len(ranks[0]) == len(ranks[1]) == 2
    assert sorted(pair for rank in ranks for batch in rank for pair in batch) == sorted(one)


def test_every_pair_of_an_optimizer_step_weighs_the_same() -> None:
    # Batches of 2, 2, 2 and 1 pairs. Steps of 3 batches: 6 pairs over 3 batches, then 1 pair whose
    # loss Lightning divides by 3 all the same: 1 / (1/3) / 3 = 1.
    assert [batch.mean_over for batch in make_loader(accumulate=3)] == [2, 2, 2, 1 / 3]
    # Two processes and steps of 1: batches 0 and 1 are a step of 4 pairs, 2 and 3 one of 3.
    assert [b.mean_over for b in make_loader(world_size=2, rank=1)] == [2, 1.5]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
def test_each_held_out_pair_is_measured_once_over_the_processes(world_size: int) -> None:
    plan = BatchPlan(PAIRS, [[i] for i in range(7)], limits=Limits("none", 2), num_epochs=1)
    loaders = [
        HeldOutLoader(PAIRS, plan, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    given = [list(loader) for loader in loaders]

    assert {len(part) for part in given} == {len(loaders[0])} == {-(-4 // world_size)}
    measured = [batch for part in given for batch in part if not batch.is_repeat]
    assert sorted(pair_numbers(measured)) == [[0, 1], [2, 3], [4, 5], [6]]

"""What was trained on is never forgotten when training goes on."""

from typing import Any

import torch

from lit_qagent.training.lineage import hash_weights, merge_lineage, splits_of

FIRST: dict[str, Any] = {"pairs_hash": "a", "task_ids": ["1"], "seed": 3}


def test_tasks_of_every_training_add_up() -> None:
    second = merge_lineage({"pairs_hash": "b", "task_ids": ["2"], "seed": 4}, FIRST)
    third = merge_lineage({"pairs_hash": "c", "task_ids": ["3"], "seed": 5}, second)

    assert third == {
        "pairs_hash": "c",
        "task_ids": ["1", "2", "3"],
        "seed": 5,
        "earlier_pairs": ["a", "b"],
    }


def test_resuming_on_the_same_pairs_changes_nothing() -> None:
    assert merge_lineage(FIRST, FIRST) == FIRST


def test_how_pairs_were_split_is_kept_where_it_changes() -> None:
    first = {**FIRST, "split_seed": 0, "split_fractions": {"valid": 0.1}}
    second = {**first, "split_seed": 1}

    merged = merge_lineage(second, first)
    again = merge_lineage(merged, merged)

    assert again == merged
    assert [split["split_seed"] for split in splits_of(merged)] == [1, 0]
    assert merge_lineage(first, first) == first


def test_an_empty_side_leaves_the_other() -> None:
    assert merge_lineage({}, FIRST) == FIRST
    assert merge_lineage(FIRST, {}) == FIRST


def test_a_hash_of_weights_follows_names_values_and_shapes_but_not_order() -> None:
    a, b = torch.arange(4.0), torch.ones(2, 2)
    assert hash_weights({"a": a, "b": b}) == hash_weights({"b": b.clone(), "a": a.clone()})
    others = [{"a": b, "b": a}, {"a": a, "b": b + 1}, {"a": a, "b": b.flatten()}, {"a": a}]
    hashes = {hash_weights(weights) for weights in [{"a": a, "b": b}, *others]}
    assert len(hashes) == 5

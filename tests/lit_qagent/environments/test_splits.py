import pytest

from lit_qagent.core.errors import ConfigError
from lit_qagent.environments.splits import SplitSizes, draw_splits, tasks_of_split


def test_splits_share_nothing_and_have_their_sizes() -> None:
    dealt = draw_splits(range(20), SplitSizes(train=8, valid=3, test=4), seed=1)
    assert {split: len(items) for split, items in dealt.items()} == {
        "train": 8,
        "valid": 3,
        "test": 4,
    }
    assert len({item for items in dealt.values() for item in items}) == 15


def test_more_training_tasks_leave_the_held_out_ones_as_they_are() -> None:
    few = draw_splits(range(50), SplitSizes(train=5, valid=4, test=6), seed=0)
    many = draw_splits(range(50), SplitSizes(train=30, valid=4, test=6), seed=0)
    assert (few["valid"], few["test"]) == (many["valid"], many["test"])
    assert many["train"][:5] == few["train"]


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"splits\.valid must be >= 0, got -1"):
        SplitSizes(valid=-1)


def test_an_unknown_split_names_the_ones_there_are() -> None:
    with pytest.raises(ConfigError, match="no split 'dev'; choose one of train, test"):
        tasks_of_split({"train": [], "test": []}, "dev", "shop")

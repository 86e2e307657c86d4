"""Splits by task, rendering once, and what is refused."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning.pytorch as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_qagent.core.errors import ConfigError, DataError
from lit_qagent.data.batch import Sharing
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.data.rendering import SequenceRenderer
from lit_qagent.data.splitting import split_tasks
from lit_qagent.policies.chat import ChatRenderer, load_renderer
from tests.pair_folder import make_pair, make_pairs, write_pairs
from tests.tiny_model import save_tiny_model


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> ChatRenderer:
    return load_renderer(str(save_tiny_model(tmp_path_factory.mktemp("model"))))


def set_up(
    data: PreferenceDataModule, renderer: SequenceRenderer, *, longest_shared: int = 2048
) -> PreferenceDataModule:
    """Call setup as a trainer with a module of this renderer would."""
    trainer = SimpleNamespace(
        lightning_module=SimpleNamespace(renderer=renderer, longest_shared=longest_shared),
        max_epochs=1,
        accumulate_grad_batches=1,
        global_rank=0,
        world_size=1,
    )
    data.trainer = cast(pl.Trainer, trainer)
    data.setup("fit")
    return data


@given(
    st.sets(st.text(max_size=5), min_size=4, max_size=30),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.01, 0.25]),
)
def test_fractions_are_shares_of_the_tasks(task_ids: set[str], seed: int, fraction: float) -> None:
    split_of = split_tasks(task_ids, seed=seed, valid=fraction, test=0.25)
    counts = {name: list(split_of.values()).count(name) for name in ("train", "valid", "test")}

    assert split_of.keys() == task_ids
    assert counts["valid"] == (max(1, round(fraction * len(task_ids))) if fraction else 0)
    assert counts["test"] == max(1, round(0.25 * len(task_ids)))
    assert split_of == split_tasks(set(sorted(task_ids)), seed=seed, valid=fraction, test=0.25)


@pytest.mark.parametrize("sharing", ["batch", "pair"])
def test_pairs_longer_than_the_model_can_share_are_unpacked_and_counted(
    chat: ChatRenderer, tmp_path: Path, caplog: pytest.LogCaptureFixture, sharing: Sharing
) -> None:
    folder = write_pairs(tmp_path, make_pairs(10, pairs_per_task=3))
    data = PreferenceDataModule(folder, batch_size=4, sharing=sharing)
    set_up(data, SequenceRenderer(chat, 2048), longest_shared=175)

    loaders: list[Any] = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]
    batches = [batch for loader in loaders for batch in loader]
    batches += [batch for _, batch in data.reference_batches("train")]

    lengths = [int(batch.tokens.position_ids.max()) + 1 for batch in batches]
    assert [batch.tokens.is_branched for batch in batches] == [n <= 175 for n in lengths]
    assert {n <= 175 for n in lengths} == {True, False}
    counts = {s: sum(p.longest > 175 for p in data.pairs_of(s)) for s in ("train", "valid", "test")}
    told = [r.getMessage() for r in caplog.records if "more than 175 tokens" in r.getMessage()]
    assert len(told) == 1
    for split, count in counts.items():
        assert f"{count} of {len(data.pairs_of(split))} {split}" in told[0]


def test_the_seed_decides_which_tasks_are_held_out() -> None:
    task_ids = {f"task-{number}" for number in range(20)}

    assert len({str(split_tasks(task_ids, seed=s, valid=0.2, test=0.2)) for s in range(5)}) == 5


def test_no_task_is_in_two_splits(tmp_path: Path, chat: ChatRenderer) -> None:
    # A pair's Q_hat is made its task's number, to find the task in the batches.
    pairs = [make_pair(t, depth, q_chosen=t) for t in range(10) for depth in range(3)]
    folder = write_pairs(tmp_path, pairs)
    data = PreferenceDataModule(folder, batch_size=4, valid_fraction=0.2, test_fraction=0.3)
    set_up(data, SequenceRenderer(chat, 2048))

    loaders = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]
    tasks = [[task for batch in loader for task in batch.q_hat[::2].tolist()] for loader in loaders]

    assert data.num_pairs == {"train": 15, "valid": 6, "test": 9}
    assert [len(split) for split in tasks] == [15, 6, 9]
    assert [len(set(split)) for split in tasks] == [5, 2, 3]
    assert len(set().union(*tasks)) == 10


LONG_ACTION = [{"role": "assistant", "content": "open[" + "x" * 300 + "]"}]


def test_pairs_longer_than_the_context_are_an_error_with_number_name_and_remedy(
    tmp_path: Path, chat: ChatRenderer
) -> None:
    pairs = [*make_pairs(8), *(make_pair(task, 1, rejected=LONG_ACTION) for task in (3, 5))]
    data = PreferenceDataModule(write_pairs(tmp_path, pairs))

    with pytest.raises(
        DataError,
        match=r"2 pairs of data.pairs are longer than model.max_length \(256 tokens\) .* such as "
        r"that of task task-3 .* depth 1; raise model.max_length, or .* data.too_long: drop",
    ):
        set_up(data, SequenceRenderer(chat, 256))


def test_a_pair_longer_than_the_context_can_be_dropped_which_is_counted_and_said(
    tmp_path: Path, chat: ChatRenderer, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = [*make_pairs(8), make_pair(0, 0, rejected=LONG_ACTION)]
    renderer = SequenceRenderer(chat, 256)

    with caplog.at_level(logging.WARNING):
        data = set_up(PreferenceDataModule(write_pairs(tmp_path, pairs), too_long="drop"), renderer)

    assert sum(data.num_pairs.values()) == 16
    assert renderer.counts.too_long == 1
    assert "1 pairs were dropped as head and action alone are longer" in caplog.text


def test_the_reference_keeps_to_the_tokens_of_a_batch(tmp_path: Path, chat: ChatRenderer) -> None:
    folder = write_pairs(tmp_path, make_pairs(12))
    sizes, tokens = [], []
    for limit in (None, 400):
        data = PreferenceDataModule(folder, max_tokens=limit)
        batches = list(set_up(data, SequenceRenderer(chat, 2048)).reference_batches("train"))
        assert sorted(i for indices, _ in batches for i in indices) == list(range(20))
        sizes.append(max(batch.num_pairs for _, batch in batches))
        tokens.append(max(batch.tokens.token_ids.numel() for _, batch in batches))

    assert (sizes[0], sizes[1] < 8, tokens[0] > 400, tokens[1] <= 400) == (8, True, True, True)


def test_setup_renders_once(tmp_path: Path, chat: ChatRenderer) -> None:
    renderer = SequenceRenderer(chat, 2048)
    data = set_up(PreferenceDataModule(write_pairs(tmp_path, make_pairs(6))), renderer)

    data.setup("validate")

    assert renderer.counts.rendered == 12


def test_lineage_names_every_task_searched_also_those_without_pairs(
    tmp_path: Path, chat: ChatRenderer
) -> None:
    folder = write_pairs(tmp_path, make_pairs(6), task_ids=["b", "a", "c"])
    data = set_up(PreferenceDataModule(folder, seed=9), SequenceRenderer(chat, 2048))

    assert data.lineage["task_ids"] == ["a", "b", "c"]
    assert data.lineage["environment"] == {"name": "boxes", "max_steps": 5, "data_hash": "0"}
    assert data.lineage["policy"] == {"name": "scripted"}
    assert (data.lineage["seed"], data.lineage["split_seed"]) == (3, 9)
    assert len(data.lineage["pairs_hash"]) == 64


def test_a_split_without_pairs_is_refused(tmp_path: Path, chat: ChatRenderer) -> None:
    folder = write_pairs(tmp_path, make_pairs(2))

    with pytest.raises(DataError, match=r"no pairs are left for train .* collect more tasks"):
        set_up(PreferenceDataModule(folder), SequenceRenderer(chat, 2048))


def test_no_validation_tasks_means_no_validation_batches(
    tmp_path: Path, chat: ChatRenderer
) -> None:
    folder = write_pairs(tmp_path, make_pairs(4))
    data = PreferenceDataModule(folder, valid_fraction=0, test_fraction=0)
    set_up(data, SequenceRenderer(chat, 2048))

    assert data.val_dataloader() == []
    with pytest.raises(ConfigError, match="test_fraction is 0, so there is nothing to test on"):
        data.test_dataloader()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"valid_fraction": 0.5, "test_fraction": 0.5}, "below 1 together, got 0.5 and 0.5"),
        ({"valid_fraction": -0.1}, "must be >= 0 .* got -0.1"),
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PreferenceDataModule(Path("pairs"), **changes)


def test_asking_before_setup_is_refused() -> None:
    with pytest.raises(ConfigError, match="call setup first"):
        _ = PreferenceDataModule(Path("pairs")).lineage

"""Streamed pairs: all of them, each epoch in another order, resumed exactly, in little memory."""

import gc
import json
import logging
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning.pytorch as pl
import pytest

from lit_qagent.core.errors import ConfigError, DataError
from lit_qagent.core.pairs import PreferencePair
from lit_qagent.data.batch import PairBatch
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.data.rendering import SequenceRenderer
from lit_qagent.data.sources import PairSource, mixed
from lit_qagent.data.stream_loader import StreamLoader
from lit_qagent.policies.chat import ChatRenderer, load_renderer
from tests.pair_folder import make_pair, make_pairs, write_pairs
from tests.tiny_model import save_tiny_model

NUM_TASKS = 20


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> ChatRenderer:
    return load_renderer(str(save_tiny_model(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), make_pairs(NUM_TASKS, pairs_per_task=3))


def write_lines(path: Path, pairs: Sequence[PreferencePair]) -> Path:
    path.write_text("\n".join(json.dumps(asdict(pair)) for pair in pairs), encoding="utf-8")
    return path


def set_up(
    chat: ChatRenderer,
    pairs: Path | list[PairSource],
    *,
    max_length: int = 2048,
    accumulate: int = 1,
    rank: int = 0,
    world_size: int = 1,
    longest_shared: int = 2048,
    **options: Any,  # noqa: ANN401
) -> PreferenceDataModule:
    settings = {"streaming": True, "window": 12, "batch_size": 4, **options}
    data = PreferenceDataModule(pairs, **settings)
    renderer = SequenceRenderer(chat, max_length)
    trainer = SimpleNamespace(
        lightning_module=SimpleNamespace(renderer=renderer, longest_shared=longest_shared),
        accumulate_grad_batches=accumulate,
        global_rank=rank,
        world_size=world_size,
        max_epochs=1,
        fit_loop=SimpleNamespace(
            epoch_progress=SimpleNamespace(current=SimpleNamespace(processed=0))
        ),
    )
    data.trainer = cast(pl.Trainer, trainer)
    data.setup("fit")
    return data


def open_loader(*arguments: Any, **options: Any) -> StreamLoader:  # noqa: ANN401
    loader = set_up(*arguments, **options).train_dataloader()
    assert isinstance(loader, StreamLoader)
    loader._num_trained = None  # there is no trainer that counts
    return loader


def names(batches: Iterator[PairBatch] | StreamLoader) -> list[tuple[str, ...]]:
    return [batch.names for batch in batches]


def flat(batches: list[tuple[str, ...]]) -> list[str]:
    return [name for batch in batches for name in batch]


@pytest.mark.parametrize("form", ["folder", ".jsonl", ".parquet"])
def test_every_training_pair_comes_once_and_the_splits_are_those_of_pairs_in_memory(
    chat: ChatRenderer, folder: Path, tmp_path: Path, form: str
) -> None:
    source = folder
    if form == ".jsonl":
        source = write_lines(tmp_path / "pairs.jsonl", make_pairs(NUM_TASKS, pairs_per_task=3))
    elif form == ".parquet":
        source = tmp_path / "pairs.parquet"
        source.write_bytes((folder / "data/train-00000-of-00001.parquet").read_bytes())
    streamed = set_up(chat, source)
    kept = set_up(chat, source, streaming=False)

    given = flat(names(streamed.train_dataloader()))  # type: ignore[arg-type]

    assert sorted(given) == sorted(pair.name for pair in kept.pairs_of("train"))
    assert len(given) == streamed.num_pairs["train"] == kept.num_pairs["train"] == 48
    for split in ("valid", "test"):
        ours = {pair.name for pair in streamed.pairs_of(split)}
        assert ours == {pair.name for pair in kept.pairs_of(split)}
    assert streamed.lineage == kept.lineage


def test_the_order_is_another_each_epoch_and_the_same_for_the_same_seed(
    chat: ChatRenderer, folder: Path
) -> None:
    def order(epoch: int, **options: Any) -> list[tuple[str, ...]]:  # noqa: ANN401
        loader = open_loader(chat, folder, **options)
        loader.set_epoch(epoch)
        return names(loader)

    first = order(0)
    assert first == order(0)
    others = [order(1), order(0, seed=1, valid_fraction=0, test_fraction=0)]
    assert first not in others
    assert order(0, num_workers=0, window=12) != order(0, window=40)
    assert sorted(flat(first)) == sorted(flat(others[0]))


def test_pairs_longer_than_the_model_can_share_are_unpacked_and_counted(
    chat: ChatRenderer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loader = open_loader(chat, folder, longest_shared=175)

    batches = list(loader)

    lengths = [int(batch.tokens.position_ids.max()) + 1 for batch in batches]
    assert [batch.tokens.is_branched for batch in batches] == [n <= 175 for n in lengths]
    unshared = sum(len(batch.names) for batch in batches if not batch.tokens.is_branched)
    assert 0 < unshared < 48
    assert f"of these {unshared} had more than 175 tokens" in caplog.text


def test_workers_do_not_change_the_batches(chat: ChatRenderer, folder: Path) -> None:
    alone, helped = (open_loader(chat, folder, num_workers=n) for n in (0, 2))

    assert names(helped) == names(alone)
    assert helped.counts == alone.counts
    assert alone.counts["rendered"] == 48


@pytest.mark.parametrize("accumulate", [1, 2])
def test_processes_share_each_step_and_its_pairs_weigh_the_same(
    chat: ChatRenderer, folder: Path, accumulate: int
) -> None:
    options = {"world_size": 2, "accumulate": accumulate, "batch_size": 5}
    ranks = [list(open_loader(chat, folder, rank=rank, **options)) for rank in range(2)]

    assert len(ranks[0]) == len(ranks[1])
    everything = [name for batches in ranks for batch in batches for name in batch.names]
    assert len(everything) == len(set(everything)) == 48
    for first in range(0, len(ranks[0]), accumulate):
        step = [batch for batches in ranks for batch in batches[first : first + accumulate]]
        per_batch = sum(batch.num_pairs for batch in step) / (2 * accumulate)
        assert {batch.mean_over for batch in step} == {per_batch}


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"world_size": 2, "batch_size": 3}])
def test_a_stream_goes_on_anywhere_in_an_epoch(
    chat: ChatRenderer, folder: Path, options: dict[str, Any]
) -> None:
    whole = open_loader(chat, folder, **options)
    whole.set_epoch(3)
    expected = [(batch.names, batch.mean_over) for batch in whole]
    per_step = options.get("accumulate", 1)

    for place in range(0, len(expected) + 1, per_step):
        loader = open_loader(chat, folder, **options)
        loader.set_epoch(3)
        for _, _ in zip(range(place), loader, strict=False):
            pass
        state = loader.state_dict()
        if place == len(expected):  # told only when more was asked for
            break
        resumed = open_loader(chat, folder, **options)
        resumed.load_state_dict(state)
        assert [(batch.names, batch.mean_over) for batch in resumed] == expected[place:]

    after = open_loader(chat, folder, **options)
    after.load_state_dict(whole.state_dict())
    assert list(after) == []  # nothing is left of this epoch; the next one is whole
    after.set_epoch(4)
    assert len(flat(names(after))) == len({name for batch, _ in expected for name in batch})


def test_what_was_trained_on_is_not_rendered_again(chat: ChatRenderer, folder: Path) -> None:
    loader = open_loader(chat, folder)
    reading = iter(loader)
    for _ in range(9):
        next(reading)
    resumed = open_loader(chat, folder)

    resumed.load_state_dict(loader.state_dict())
    rest = names(resumed)

    assert len(rest) == 3
    assert resumed.counts["rendered"] <= 24  # of 48: the windows from its place on


def test_trajectories_stay_together(chat: ChatRenderer, folder: Path) -> None:
    loader = open_loader(chat, folder, order="trajectories", sharing="batch", batch_size=6)

    batches = names(loader)

    assert len(flat(batches)) == 48
    for batch in batches:
        trees = [name.split(" depth")[0] for name in batch]
        assert all(trees.count(tree) == 3 for tree in trees)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_pair_longer_than_the_context_stops_the_stream(
    chat: ChatRenderer, tmp_path: Path, num_workers: int
) -> None:
    long_action = [{"role": "assistant", "content": "open[" + "x" * 300 + "]"}]
    pairs = [*make_pairs(16), make_pair(9, 0, rejected=long_action)]
    path = write_lines(tmp_path / "pairs.jsonl", pairs)
    options = {"valid_fraction": 0, "test_fraction": 0, "num_workers": num_workers}
    loader = open_loader(chat, path, max_length=256, **options)

    with pytest.raises(
        DataError, match=r"1 pairs of data.pairs .* task task-9 .* data.too_long: drop"
    ):
        list(loader)


def test_a_pair_that_is_wrong_stops_the_stream_under_its_own_name(
    chat: ChatRenderer, tmp_path: Path
) -> None:
    pairs = [*make_pairs(16), replace(make_pair(9, 0), depth=9)]
    folder = write_pairs(tmp_path, pairs)
    loader = open_loader(chat, folder, valid_fraction=0, test_fraction=0)

    with pytest.raises(DataError, match=r"depth 9"):
        list(loader)


def test_what_is_left_out_is_counted_and_said(
    chat: ChatRenderer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long_action = [{"role": "assistant", "content": "open[" + "x" * 300 + "]"}]
    pairs = [*make_pairs(16), *(make_pair(t, 0, rejected=long_action) for t in range(16))]
    path = write_lines(tmp_path / "pairs.jsonl", pairs)
    options = {"valid_fraction": 0, "test_fraction": 0, "too_long": "drop"}
    loader = open_loader(chat, path, max_length=256, **options)

    with caplog.at_level(logging.WARNING):
        given = flat(names(loader))

    assert len(given) == 32
    assert loader.counts["too_long"] == 16
    assert "16 pairs were dropped as head and action alone are longer" in caplog.text


def test_a_pair_over_the_tokens_of_a_batch_is_left_out_counted_and_said(
    chat: ChatRenderer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long_action = [{"role": "assistant", "content": "open[" + "x" * 300 + "]"}]
    pairs = [*make_pairs(16), *(make_pair(t, 0, rejected=long_action) for t in range(16))]
    path = write_lines(tmp_path / "pairs.jsonl", pairs)
    options = {"max_tokens": 300, "valid_fraction": 0, "test_fraction": 0}
    loader = open_loader(chat, path, **options)

    with caplog.at_level(logging.WARNING):
        given = flat(names(loader))

    assert (len(given), loader.counts["over_max_tokens"]) == (32, 16)
    assert "16 as they alone have more than data.max_tokens" in caplog.text
    with pytest.raises(ConfigError, match=r"alone needs \d+ \(task task-.* depth 0\); raise"):
        set_up(chat, path, streaming=False, **options).train_dataloader()


def test_a_stream_of_which_nothing_is_left_is_refused(chat: ChatRenderer, folder: Path) -> None:
    loader = open_loader(chat, folder, max_tokens=50)

    with pytest.raises(DataError, match=r"no pair that .* raise .* data.max_tokens.* 48 as they"):
        list(loader)


def test_weights_repeat_pairs_and_mix_the_sources_evenly(tmp_path: Path) -> None:
    one = write_lines(tmp_path / "one.jsonl", make_pairs(30, pairs_per_task=1))
    two = write_lines(tmp_path / "two.jsonl", [make_pair(t, 1) for t in range(60)])
    sources = [PairSource(path=one, weight=2.0), PairSource(path=two, weight=0.5)]

    depths = [pair.depth for pair in mixed(sources, [30, 60], seed=0)]

    assert depths.count(0) == 60
    assert 20 <= depths.count(1) <= 40  # half of 60 by hash
    assert 20 <= sum(depths[: len(depths) // 2].count(d) for d in (0,)) <= 40
    assert depths == [pair.depth for pair in mixed(sources, [30, 60], seed=0)]


def test_a_set_on_the_hub_is_streamed(chat: ChatRenderer, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import IterableDataset

    rows = [{"prompt": f"Task {i}", "chosen": "yes", "rejected": "no"} for i in range(20)]
    asked = []

    def load(name: str, subset: str | None, **options: Any) -> IterableDataset:  # noqa: ANN401
        asked.append((name, subset, *sorted(options.items())))
        return IterableDataset.from_generator(lambda: iter(rows))

    monkeypatch.setattr("datasets.load_dataset", load)
    part = {"split": "train_prefs", "subset": "small", "revision": "v1"}
    whole, some = Path("somebody/pairs"), PairSource(path=Path("somebody/pairs"), **part)  # type: ignore[arg-type]

    for source in (whole, [some]):
        loader = open_loader(chat, source, valid_fraction=0, test_fraction=0)
        assert len(flat(names(loader))) == 20

    expected = [
        ("somebody/pairs", None, ("revision", None), ("split", "train"), ("streaming", True)),
        ("somebody/pairs", "small", ("revision", "v1"), ("split", "train_prefs"), asked[-1][-1]),
    ]
    assert list(dict.fromkeys(asked)) == expected


def large_file(path: Path, num_pairs: int) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_pairs):
            row = {"prompt": f"Task {number}: " + "look " * 240, "chosen": "a", "rejected": "b"}
            file.write(json.dumps(row) + "\n")
    return path


def peak_megabytes(chat: ChatRenderer, path: Path, **options: Any) -> float:  # noqa: ANN401
    """Read an epoch and return what Python held at most."""
    gc.collect()
    tracemalloc.start()
    data = set_up(
        chat, path, batch_size=8, window=32, valid_fraction=0.01, test_fraction=0, **options
    )
    loader = data.train_dataloader()
    if isinstance(loader, StreamLoader):
        loader._num_trained = None
    assert sum(batch.num_pairs for batch in loader) == data.num_pairs["train"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def test_memory_does_not_grow_with_the_file(chat: ChatRenderer, tmp_path: Path) -> None:
    small, large = large_file(tmp_path / "a.jsonl", 200), large_file(tmp_path / "b.jsonl", 800)
    peak_megabytes(chat, small)  # what is imported once

    streamed = peak_megabytes(chat, small), peak_megabytes(chat, large)
    kept = peak_megabytes(chat, large, streaming=False)

    assert streamed[1] < 1.25 * streamed[0]
    assert streamed[1] < kept / 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 3}, r"data.window must be >= data.batch_size \(4\), got 3"),
        ({"num_workers": -1}, "data.num_workers must be >= 0, got -1"),
    ],
)
def test_values_out_of_range_are_refused(
    chat: ChatRenderer, folder: Path, options: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        set_up(chat, folder, **options)


def test_what_cannot_be_streamed_is_refused(chat: ChatRenderer, tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cannot read .* write it as JSON lines"):
        set_up(chat, path)
    empty = tmp_path / "pairs.jsonl"
    empty.touch()
    with pytest.raises(DataError, match="has no pairs; give a file with at least one"):
        set_up(chat, empty)
    with pytest.raises(ConfigError, match="names no source"):
        set_up(chat, [])


def test_streamed_pairs_cannot_be_asked_for_at_once(chat: ChatRenderer, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"keeps no training pairs.* model.reference to live"):
        set_up(chat, folder).pairs_of("train")

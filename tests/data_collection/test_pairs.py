import hashlib
import json
from pathlib import Path

import pytest

from data_collection.collect import collect
from data_collection.filters import PairFilter
from data_collection.pairs import build_pairs, write_pairs
from data_collection.setup import SearchSetup
from data_collection.store import TreeStore
from lit_qagent.core.errors import ConfigError, DataError, OverlapError, StoreError
from lit_qagent.core.pairs import PAIR_FILE
from tests.data_collection.parts import LetterWorld, PlannedPolicy, make_setup, spell_setup


def _fill(folder: Path, setup: SearchSetup) -> TreeStore:
    store = TreeStore(folder)
    collect(setup, setup.environment.tasks("train"), store, concurrency=2)
    return store


def _store(tmp_path: Path) -> TreeStore:
    return _fill(tmp_path / "store", spell_setup(stop_at_success=False))


def test_pairs_of_the_tree_followed_by_hand(tmp_path: Path) -> None:
    pair_set = build_pairs(_store(tmp_path))
    # The best end is b d, worth 1: b (0.25) against a (0), then d (1) against c (0.25).
    assert [
        (p.depth, p.chosen[0]["content"], p.rejected[0]["content"]) for p in pair_set.pairs
    ] == [
        (0, "b", "a"),
        (1, "d", "c"),
    ]
    card = pair_set.card
    assert (card.num_trees, card.num_pairs, card.task_ids) == (1, 2, ["train/0"])
    assert card.pairs_by_depth == {"0": 1, "1": 1}
    assert card.environment["name"] == "letters"
    assert card.search["num_candidates"] == 3
    assert card.policy["sampling"]["temperature"] == 1.0


def test_small_margins_are_left_out_and_counted(tmp_path: Path) -> None:
    pair_set = build_pairs(_store(tmp_path), keep=PairFilter(min_margin=0.5))
    assert [pair.depth for pair in pair_set.pairs] == [1]
    assert pair_set.card.removed["pairs_below_min_margin"] == 1
    assert pair_set.card.rule == {"name": "paper", "min_margin": 0.5}


def test_searched_tasks_among_the_evaluation_tasks_are_refused(tmp_path: Path) -> None:
    store = _store(tmp_path)
    with pytest.raises(
        OverlapError, match=r"1 of the searched tasks are evaluation tasks .train/0"
    ):
        build_pairs(store, evaluation_ids={"train/0", "test/0"})
    assert build_pairs(store, evaluation_ids={"test/0"}).num_evaluation_tasks == 1


def test_no_pairs_is_an_error_that_says_what_to_change(tmp_path: Path) -> None:
    world = LetterWorld(rewards={"a": 0.0, "b": 0.0})
    store = _fill(tmp_path / "store", make_setup(world, PlannedPolicy({"": ["a", "b"]})))
    with pytest.raises(
        DataError,
        match=r"give no pair \(trees_without_positive_reward: 1\). Collect with more search",
    ):
        build_pairs(store)


def test_an_empty_store_is_an_error_with_the_next_step(tmp_path: Path) -> None:
    setup = spell_setup()
    store = TreeStore(tmp_path / "store")
    with store.open(setup.manifest()):
        pass
    with pytest.raises(DataError, match="has no tree yet; run 'python -m data_collection collect'"):
        build_pairs(store)


def test_an_unknown_rule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rule must be one of paper, .*, got 'mine'"):
        build_pairs(_store(tmp_path), rule="mine")


@pytest.mark.integration
def test_the_folder_is_read_by_datasets(tmp_path: Path) -> None:
    from datasets import load_dataset

    pair_set = build_pairs(_store(tmp_path), evaluation_ids={"test/0"})
    folder = tmp_path / "out" / "pairs"
    card = write_pairs(pair_set, folder)
    rows = load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.num_rows == 2
    assert rows[1]["chosen"] == [{"role": "assistant", "content": "d"}]
    assert rows[1]["prompt"][-1] == {"role": "user", "content": "So far: b"}
    assert rows[1]["q_chosen"] == 1.0
    stored = json.loads((folder / "card.json").read_text())
    assert stored["pairs_hash"] == card.pairs_hash
    assert card.pairs_hash == hashlib.sha256((folder / PAIR_FILE).read_bytes()).hexdigest()
    readme = (folder / "README.md").read_text()
    # Depth 1: margin 1 - 0.25; d was never visited, c once.
    assert "| 1 | 1 | 0.750 | 0.750 | 0 | 0.0 | 1.0 | 1.0 | 1.0 |" in readme
    assert "- Searched tasks among them: 0" in readme
    assert not list(folder.parent.glob("*.partial"))


@pytest.mark.integration
def test_a_folder_is_never_overwritten_with_something_else(tmp_path: Path) -> None:
    store = _store(tmp_path)
    folder = tmp_path / "pairs"
    write_pairs(build_pairs(store), folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write_pairs(build_pairs(store), folder)
    with pytest.raises(StoreError, match="pairs already holds other files; nothing was changed"):
        write_pairs(build_pairs(store, keep=PairFilter(min_margin=0.5)), folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.integration
@pytest.mark.parametrize("rule", ["paper", "trajectory"])
def test_trl_trains_on_the_folder_unchanged(tmp_path: Path, rule: str) -> None:
    from datasets import load_dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from tests.tiny_model import save_tiny_model

    folder = tmp_path / "pairs"
    write_pairs(build_pairs(_store(tmp_path), rule=rule), folder)
    rows = load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    model = save_tiny_model(tmp_path / "model")
    trainer = DPOTrainer(
        model=str(model),
        args=DPOConfig(
            output_dir=str(tmp_path / "out"),
            max_steps=1,
            per_device_train_batch_size=2,
            report_to=[],
            use_cpu=True,
            bf16=False,
            save_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    # Before the first step policy and reference are equal: -log sigmoid(0) = log 2.
    assert trainer.train().training_loss == pytest.approx(0.6931, abs=1e-3)

import json
from pathlib import Path
from typing import get_args

import pytest

from data_collection.cli import Pairs
from data_collection.collect import collect
from data_collection.pairs import build_pairs, write_pairs
from data_collection.store import TreeStore
from data_collection.viewer.marks import mark_tree, read_stored_pairs
from lit_qagent.core.errors import DataError
from lit_qagent.core.pairs import CARD_FILE
from tests.data_collection.parts import spell_setup

RULES = get_args(Pairs.__annotations__["rule"])


@pytest.mark.parametrize("rule", RULES)
def test_every_pair_of_every_rule_is_found_in_its_tree(tmp_path: Path, rule: str) -> None:
    setup = spell_setup(stop_at_success=False)
    store = TreeStore(tmp_path / "store")
    collect(setup, setup.environment.tasks("train"), store, concurrency=1)
    write_pairs(build_pairs(store, rule=rule), tmp_path / "pairs")
    stored_pairs = read_stored_pairs(tmp_path / "pairs")
    (stored,) = store.trees()
    pairs = stored_pairs.by_tree[stored.header.tree_id]
    marks = mark_tree(stored.tree, pairs)
    assert (marks.num_pairs, marks.num_lost) == (stored_pairs.num_pairs, 0)
    assert stored_pairs.rule == rule
    if rule == "trajectory":
        return
    assert marks.chosen.total() == marks.rejected.total() == len(pairs)
    # The values behind the marks are those of the pairs.
    values = sorted(stored.tree.q_hat(node) or 0.0 for node in marks.chosen.elements())
    assert values == sorted(pair["q_chosen"] for pair in pairs)


def test_pairs_of_another_tree_are_counted(tmp_path: Path) -> None:
    setup = spell_setup(stop_at_success=False)
    store = TreeStore(tmp_path / "store")
    collect(setup, setup.environment.tasks("train"), store, concurrency=1)
    write_pairs(build_pairs(store), tmp_path / "pairs")
    (stored,) = store.trees()
    (pairs,) = read_stored_pairs(tmp_path / "pairs").by_tree.values()
    foreign = [{**pair, "chosen": [{"role": "assistant", "content": "z"}]} for pair in pairs]
    marks = mark_tree(stored.tree, foreign)
    assert (marks.num_pairs, marks.num_lost) == (0, len(pairs))
    assert not marks.chosen


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no folder of pairs: card\.json cannot be read"):
        read_stored_pairs(tmp_path)
    card = {"schema_version": 99, "rule": {"name": "paper"}}
    (tmp_path / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(DataError, match="has schema version 99, this program reads 1"):
        read_stored_pairs(tmp_path)
    (tmp_path / CARD_FILE).write_text(json.dumps(card | {"schema_version": 1}))
    with pytest.raises(DataError, match="make the pairs again"):
        read_stored_pairs(tmp_path)

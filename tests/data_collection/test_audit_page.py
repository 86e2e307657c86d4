import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from data_collection.audit_page import audit_page, bars, binned
from data_collection.collect import collect
from data_collection.pairs import build_pairs, write_pairs
from data_collection.store import TreeStore
from tests.data_collection.parts import LetterWorld, PlannedPolicy, make_setup, spell_setup


def test_few_values_are_bins_of_their_own_and_many_share_twenty() -> None:
    assert binned([0.5, 0.5, 1.0]) == [("0.5", 2), ("1", 1)]
    many = binned([number / 10 for number in range(100)])
    assert len(many) == 20
    assert {count for _, count in many} == {5}
    assert sum(count for _, count in many) == 100


def test_bars_are_as_tall_as_their_counts() -> None:
    root = ET.fromstring(bars([("0", 10), ("1", 5), ("2", 0)]))
    heights = [float(rect.attrib["height"]) for rect in root.iter("rect")]
    assert heights[0] == pytest.approx(2 * heights[1])
    assert heights[2] == 0.0
    assert [text.text for text in root.iter("text")] == ["10", "0", "5", "1", "0", "2"]


def test_the_page_holds_the_numbers_and_no_script(tmp_path: Path) -> None:
    world = LetterWorld(rewards={"a": 1.0, "b": 0.0}, max_steps=2)
    world.name = "<script>alert(1)</script>"  # type: ignore[misc]
    setup = make_setup(world, PlannedPolicy({"": ["a", "b", "??"], "??": ["a"]}))
    store = TreeStore(tmp_path / "store")
    collect(setup, world.tasks("train"), store, concurrency=1)
    pair_set = build_pairs(store)
    page = audit_page(pair_set.pairs, pair_set.card, {"Invalid chosen": 7})
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<th>Invalid chosen</th><td>7</td>" in page
    assert page.count("<svg") == 4
    assert "http" not in page


@pytest.mark.integration
def test_the_page_is_part_of_the_folder(tmp_path: Path) -> None:
    setup = spell_setup(stop_at_success=False)
    store = TreeStore(tmp_path / "store")
    collect(setup, setup.environment.tasks("train"), store, concurrency=1)
    write_pairs(build_pairs(store), tmp_path / "pairs")
    page = (tmp_path / "pairs" / "audit.html").read_text()
    assert "Chosen actions that the world could not carry out</th><td>0</td>" in page
    assert "Length bias" in page

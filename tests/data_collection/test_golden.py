"""A whole search stored node by node; it changes only if the search does.

To make it anew after a change that is meant: ``python tests/data_collection/test_golden.py``.
"""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_collection.search import TreeSearch
from data_collection.spec import SearchSpec
from tests.data_collection.parts import LetterWorld, SeededPolicy, make_setup, search_tree

GOLDEN = Path(__file__).with_name("golden_tree.json")


def _search(config: dict[str, Any]) -> dict[str, Any]:
    setup = make_setup(
        LetterWorld(**config["environment"]),
        SeededPolicy(**config["policy"]),
        SearchSpec(**config["search"]),
        seed=config["seed"],
    )
    search = TreeSearch(setup, setup.environment.tasks("train")[0])
    end = asyncio.run(search_tree(search, lambda _: None))
    nodes = [
        {
            "index": node.index,
            "parent": node.parent,
            "action": node.step.action if node.step else None,
            "visits": node.visits,
            "value": node.value,
            "q_hat": search.tree.q_hat(node.index),
            "is_exhausted": node.is_exhausted,
        }
        for node in search.tree.nodes
    ]
    return {"end": asdict(end), "nodes": nodes}


def test_the_search_gives_the_stored_tree() -> None:
    golden = json.loads(GOLDEN.read_text())
    assert _search(golden["config"]) == golden["tree"]


def test_the_stored_tree_obeys_the_laws_of_the_search() -> None:
    nodes = json.loads(GOLDEN.read_text())["tree"]["nodes"]
    assert len(nodes) > 20
    for node in nodes:
        below = [child for child in nodes if child["parent"] == node["index"]]
        if node["parent"] is None:
            assert node["visits"] == sum(child["visits"] for child in below)
        if below and all(child["visits"] for child in below):
            # Every evaluation of a node went through one of its children.
            total = sum(child["visits"] * child["value"] for child in below)
            own = node["visits"] - sum(child["visits"] for child in below)
            assert own in {0, 1}
            if own == 0:
                assert abs(node["value"] * node["visits"] - total) < 1e-9


if __name__ == "__main__":
    record = json.loads(GOLDEN.read_text())
    record["tree"] = _search(record["config"])
    GOLDEN.write_text(json.dumps(record, indent=1) + "\n")

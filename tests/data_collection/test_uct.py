import math

import pytest

from data_collection.tree import ROOT, SearchTree
from data_collection.uct import Descent, uct
from tests.data_collection.parts import make_step


def test_equals_a_hand_calculation() -> None:
    # V = 0.5, N = 2, N(parent) = 8: 0.5 + sqrt(2 * 2.0794415 / 2) = 0.5 + 1.4420268
    assert uct(0.5, 2, 8, eta=2.0) == pytest.approx(1.9420268, abs=1e-6)


def test_value_is_a_mean_and_is_not_divided_by_visits_again() -> None:
    # With N(parent) = 1 there is no exploration term: only V is left, whatever N is.
    assert uct(0.8, 4, 1) == 0.8


def test_eta_zero_is_greedy() -> None:
    assert uct(0.3, 5, 100, eta=0.0) == 0.3


def test_an_unvisited_child_comes_first() -> None:
    assert uct(-1.0, 0, 50) == math.inf


def test_selection_prefers_the_higher_mean_once_all_are_visited_often() -> None:
    tree = SearchTree(truncation_reward=-1.0)
    good = tree.add(ROOT, make_step("good"))
    bad = tree.add(ROOT, make_step("bad"))
    for _ in range(20):
        tree.backup(good.index, 0.9)
    for _ in range(10):
        tree.backup(bad.index, 0.1)
    # ln 30 = 3.4012: good 0.9 + sqrt(6.8024 / 20) = 1.4832, bad 0.1 + sqrt(6.8024 / 10) = 0.9248.
    # A mean divided by N again would choose bad: 0.045 + 0.583 < 0.01 + 0.825.
    assert Descent().select(tree) == good.index


def test_selection_passes_exhausted_nodes_by() -> None:
    tree = SearchTree(truncation_reward=-1.0)
    end = tree.add(ROOT, make_step("end", 0.9))
    open_node = tree.add(ROOT, make_step("open"))
    for node in (end, open_node, open_node, open_node):
        tree.backup(node.index, 0.9 if node is end else -1.0)
    assert Descent().select(tree) == open_node.index
    assert Descent(revisit_ends=True).select(tree) == end.index

import pytest

from data_collection.tree import ROOT, SearchTree
from lit_qagent.core.errors import DataError
from tests.data_collection.parts import make_step


def _tree() -> SearchTree:
    return SearchTree(truncation_reward=-0.5)


def test_nodes_hang_together_by_index() -> None:
    tree = _tree()
    a = tree.add(ROOT, make_step("a"))
    b = tree.add(a.index, make_step("b"))
    c = tree.add(a.index, make_step("c"))
    assert [node.parent for node in tree.nodes] == [None, 0, 1, 1]
    assert [node.depth for node in tree.nodes] == [0, 1, 2, 2]
    assert a.children == [b.index, c.index]
    assert [step.action for step in tree.steps(c.index)] == ["a", "c"]


def test_an_absent_parent_is_an_error() -> None:
    with pytest.raises(DataError, match="node 7 is not in the tree, which has nodes 0 to 0"):
        _tree().add(7, make_step("a"))
    with pytest.raises(DataError, match="node -1 is not in the tree"):
        _tree().add(-1, make_step("a"))


def test_an_end_has_no_children() -> None:
    tree = _tree()
    end = tree.add(ROOT, make_step("a", 0.0))
    with pytest.raises(DataError, match="node 1 ended its episode"):
        tree.add(end.index, make_step("b"))


def test_backup_keeps_the_mean_from_leaf_to_root() -> None:
    tree = _tree()
    a = tree.add(ROOT, make_step("a"))
    b = tree.add(ROOT, make_step("b"))
    tree.backup(a.index, 1.0)
    tree.backup(b.index, 0.0)
    tree.backup(a.index, 0.5)
    # The mean of 1 and 0.5 is 0.75; that of 1, 0 and 0.5 is 0.5.
    assert (a.visits, a.value) == (2, 0.75)
    assert (b.visits, b.value) == (1, 0.0)
    assert tree[ROOT].visits == 3
    assert tree[ROOT].value == pytest.approx(0.5)


def test_q_hat_is_outcome_at_ends_value_where_visited_and_unknown_elsewhere() -> None:
    tree = _tree()
    end = tree.add(ROOT, make_step("end", 0.25))
    cut = tree.add(ROOT, make_step("cut", truncated=True))
    visited = tree.add(ROOT, make_step("visited"))
    unvisited = tree.add(ROOT, make_step("unvisited"))
    tree.backup(visited.index, -0.5)
    tree.backup(visited.index, 1.0)
    nodes = (end, cut, visited, unvisited)
    assert [tree.q_hat(node.index) for node in nodes] == [0.25, -0.5, 0.25, None]
    assert tree.q_hat(ROOT) == 0.25


def test_exhausted_spreads_upwards_only_when_all_children_are() -> None:
    tree = _tree()
    a = tree.add(ROOT, make_step("a"))
    b = tree.add(ROOT, make_step("b", 0.0))
    tree.close(ROOT)
    assert b.is_exhausted
    assert not tree[ROOT].is_exhausted
    c = tree.add(a.index, make_step("c", 0.0))
    tree.close(a.index)
    assert a.is_exhausted
    assert tree[ROOT].is_exhausted
    assert [node.index for node in tree.nodes] == [0, a.index, b.index, c.index]

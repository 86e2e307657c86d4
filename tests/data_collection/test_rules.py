from dataclasses import replace

from data_collection.iterations import Iteration, TreeHeader, apply_iteration
from data_collection.pair_draft import Extraction, Labels, find_best_end
from data_collection.rules import RULES
from data_collection.tree import SearchTree
from data_collection.tree_file import StoredTree
from lit_qagent.core.records import Message, Step
from tests.data_collection.parts import make_step

HEAD = (
    Message(role="system", content="rules"),
    Message(role="user", content="example task"),
    Message(role="assistant", content="example action"),
    Message(role="user", content="task"),
)


def _stored(*iterations: Iteration) -> StoredTree:
    tree = SearchTree(truncation_reward=-1.0)
    for iteration in iterations:
        apply_iteration(tree, iteration)
    header = TreeHeader(
        tree_id="t-1", task_id="t", split="train", seed=0, head=HEAD, first_observation="task"
    )
    return StoredTree(header=header, iterations=iterations, end=None, tree=tree, is_torn=False)


def _iteration(
    number: int,
    selected: int,
    children: list[Step],
    evaluated: int,
    rollout: list[Step],
    reward: float,
) -> Iteration:
    return Iteration(
        number=number,
        selected=selected,
        children=tuple(children),
        evaluated=evaluated,
        rollout=tuple(rollout),
        reward=reward,
    )


def _made_by_hand() -> StoredTree:
    """A tree whose best end is that of a rollout below node 5, path a (1), c (5).

    Root's children: a (1), b (2, an end worth 0.25), d (3), e (4, never visited).
    a's children: c (5), f (6, cut by the step limit), g (7, never visited).
    d's child: h (8, an end worth 0).
    """
    first = [make_step("a"), make_step("b", 0.25), make_step("d"), make_step("e")]
    second = [make_step("c"), make_step("f", truncated=True), make_step("g")]
    return _stored(
        _iteration(0, 0, first, 1, [make_step("x", 0.0)], 0.0),
        _iteration(1, 1, second, 5, [make_step("y"), make_step("z", 0.75)], 0.75),
        _iteration(2, 3, [make_step("h", 0.0)], 8, [], 0.0),
    )


def _extract(rule: str, stored: StoredTree) -> Extraction:
    return RULES[rule].extract(stored, Labels(environment="letters", prompt_version="1.1"))


def _short(extraction: Extraction) -> list[tuple[int, str, str, float, float, int, int]]:
    return [
        (
            pair.depth,
            pair.chosen[0]["content"],
            pair.rejected[0]["content"],
            pair.q_chosen,
            pair.q_rejected,
            pair.visits_chosen,
            pair.visits_rejected,
        )
        for pair, _, _ in extraction.pairs
    ]


def test_the_best_end_may_be_that_of_a_rollout() -> None:
    best = find_best_end(_made_by_hand())
    assert best is not None
    assert (best.reward, best.node) == (0.75, 5)
    assert [step.action for step in best.rollout] == ["y", "z"]


def test_paper_takes_the_path_against_the_worst_sibling() -> None:
    extraction = _extract("paper", _made_by_hand())
    # V(a) = (0 + 0.75) / 2, V(d) = 0; the cut end f counts -1.
    assert _short(extraction) == [
        (0, "a", "d", 0.375, 0.0, 2, 1),
        (1, "c", "f", 0.75, -1.0, 1, 0),
    ]
    assert extraction.removed["siblings_never_visited"] == 2  # e and g
    assert extraction.removed["depths_without_valued_sibling"] == 0


def test_as_released_takes_best_against_worst_child_with_unvisited_ones_as_0() -> None:
    root = [make_step("a"), make_step("b", 0.5), make_step("c")]
    # a's path holds the best end, but V(a) = (1 + 0 + 0) / 3 is below the value of b.
    stored = _stored(
        _iteration(0, 0, root, 1, [make_step("x", 1.0)], 1.0),
        _iteration(1, 1, [make_step("d", 0.0)], 4, [], 0.0),
        _iteration(2, 4, [], 4, [], 0.0),
    )
    assert _short(_extract("as_released", stored)) == [(0, "b", "c", 0.5, 0.0, 0, 0)]
    [(pair, _, _)] = _extract("paper", stored).pairs
    assert (pair.chosen[0]["content"], pair.rejected[0]["content"]) == ("a", "b")
    assert pair.q_chosen < pair.q_rejected  # kept as the rule says, counted by the audit


def test_as_released_skips_a_depth_where_best_and_worst_are_one_child() -> None:
    stored = _stored(
        _iteration(0, 0, [make_step("a"), make_step("b", 0.0)], 1, [], 0.0),
        _iteration(1, 1, [make_step("c", 1.0)], 3, [], 1.0),
    )
    extraction = _extract("as_released", stored)
    assert [pair.depth for pair, _, _ in extraction.pairs] == [0]
    assert extraction.removed == {"depths_where_best_and_worst_are_one": 1}


def test_prompts_hold_the_history_and_only_the_papers_hold_the_examples() -> None:
    paper = [pair for pair, _, _ in _extract("paper", _made_by_hand()).pairs]
    assert paper[0].prompt == [message.to_dict() for message in HEAD]
    assert paper[1].prompt == [
        *(message.to_dict() for message in HEAD),
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "after a"},
    ]
    assert paper[1].prompt[-2 * paper[1].depth :][0]["role"] == "assistant"
    released = [pair for pair, _, _ in _extract("as_released", _made_by_hand()).pairs]
    assert [message["content"] for message in released[0].prompt] == ["rules", "task"]


def test_labels_name_where_a_pair_comes_from() -> None:
    pair = _extract("paper", _made_by_hand()).pairs[0].pair
    assert (pair.task_id, pair.tree_id, pair.rule) == ("t", "t-1", "paper")
    assert (pair.environment, pair.prompt_version) == ("letters", "1.1")


def test_no_pair_where_no_sibling_has_a_value() -> None:
    stored = _stored(
        _iteration(0, 0, [make_step("a"), make_step("b")], 1, [make_step("x", 1.0)], 1.0)
    )
    extraction = _extract("paper", stored)
    assert extraction.pairs == ()
    assert extraction.removed == {"siblings_never_visited": 1, "depths_without_valued_sibling": 1}


def test_a_tree_that_earned_nothing_gives_no_pair() -> None:
    failed = _stored(_iteration(0, 0, [make_step("a", 0.0), make_step("b", 0.0)], 1, [], 0.0))
    for stored in (failed, _stored()):
        for rule in RULES:
            extraction = _extract(rule, stored)
            assert extraction.pairs == ()
            assert extraction.removed == {"trees_without_positive_reward": 1}


def test_the_earliest_of_equal_ends_is_taken() -> None:
    root = [make_step("a", 0.5), make_step("b", 0.5), make_step("c", 0.0)]
    [(pair, _, _)] = _extract("paper", _stored(_iteration(0, 0, root, 1, [], 0.5))).pairs
    assert (pair.chosen[0]["content"], pair.rejected[0]["content"]) == ("a", "c")


def test_the_worst_negatives_are_still_there_after_exhaustion() -> None:
    # METHOD: nodes whose search was exhausted used to be removed, and the best negatives with them.
    root = [make_step("bad"), make_step("good")]
    stored = _stored(
        _iteration(0, 0, root, 1, [make_step("x", 0.0)], 0.0),
        _iteration(1, 1, [make_step("y", 0.0)], 3, [], 0.0),
        _iteration(2, 2, [make_step("z", 1.0)], 4, [], 1.0),
    )
    assert stored.tree[1].is_exhausted
    assert _short(_extract("paper", stored)) == [(0, "good", "bad", 1.0, 0.0, 1, 2)]


def test_all_siblings_pairs_every_two_of_unequal_value_anywhere() -> None:
    extraction = _extract("all_siblings", _made_by_hand())
    # Root: a 0.375, b 0.25, d 0 (e unknown). Below a: c 0.75, f -1 (g unknown). Below d: h alone.
    assert [short[:3] for short in _short(extraction)] == [
        (0, "a", "b"),
        (0, "a", "d"),
        (0, "b", "d"),
        (1, "c", "f"),
    ]
    assert extraction.removed["siblings_never_visited"] == 2


def test_adjacent_pairs_neighbours_in_value_and_counts_equal_ones() -> None:
    assert [short[:3] for short in _short(_extract("adjacent", _made_by_hand()))] == [
        (0, "a", "b"),
        (0, "b", "d"),
        (1, "c", "f"),
    ]
    root = [make_step("a", 0.5), make_step("b", 0.0), make_step("c", 0.0)]
    extraction = _extract("adjacent", _stored(_iteration(0, 0, root, 1, [], 0.5)))
    assert [short[1:3] for short in _short(extraction)] == [("a", "b")]
    assert extraction.removed == {"couples_of_equal_value": 1, "siblings_never_visited": 0}


def test_trajectory_pairs_the_best_whole_episode_with_the_worst() -> None:
    [(pair, _, _)] = _extract("trajectory", _made_by_hand()).pairs
    assert pair.prompt == [message.to_dict() for message in HEAD]
    # Best: a, c and the rollout y, z (0.75). Worst: a, f, cut by the step limit (-1).
    assert [message["content"] for message in pair.chosen] == [
        *("a", "after a", "c", "after c", "y", "after y", "z"),
    ]
    assert [message["role"] for message in pair.rejected] == ["assistant", "user", "assistant"]
    assert [message["content"] for message in pair.rejected] == ["a", "after a", "f"]
    assert (pair.depth, pair.q_chosen, pair.q_rejected) == (0, 0.75, -1.0)


def test_trajectory_needs_two_ends_of_unequal_reward() -> None:
    root = [make_step("a", 0.5), make_step("b", 0.5)]
    extraction = _extract("trajectory", _stored(_iteration(0, 0, root, 1, [], 0.5)))
    assert extraction.pairs == ()
    assert extraction.removed == {"couples_of_equal_value": 1}


def test_actions_that_the_world_could_not_carry_out_are_marked() -> None:
    bad = replace(make_step("bad", 0.0), valid=False)
    root = [make_step("a", 0.5), bad]
    for rule in RULES:
        [drawn] = _extract(rule, _stored(_iteration(0, 0, root, 1, [], 0.5))).pairs
        assert (drawn.is_chosen_valid, drawn.is_rejected_valid) == (True, False)

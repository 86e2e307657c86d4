import math
from pathlib import Path

from data_collection.viewer.encoding import Texts, encode_tree, plain_settings
from data_collection.viewer.marks import mark_tree
from tests.data_collection.viewer.stores import Tree, iteration, small_tree, step, write_store


def test_a_tree_becomes_parallel_arrays(tmp_path: Path) -> None:
    (stored,) = write_store(tmp_path, [small_tree()]).trees()
    texts = Texts()
    found = encode_tree(stored, texts)
    assert found["p"] == [-1, 0, 0, 1, 1]
    assert found["n"] == [2, 2, 0, 1, 0]
    assert found["v"] == [0.375, 0.375, 0, 0.5, 0]
    assert found["q"] == [0.375, 0.375, None, 0.5, None]
    assert found["r"] == [0, 0, 0, 0.5, 0]
    # The end is over and so exhausted; the action of no effect is invalid.
    assert found["f"] == [0, 0, 0, 1 | 8, 4]
    assert [texts.all[number] for number in found["a"]][1:3] == [
        "Thought: go.\nAction: go[a]",
        "go[b]",
    ]
    assert [texts.all[number] for number in found["c"]][1:3] == ["go[a]", "go[b]"]
    assert (found["outcome"], found["best"], found["end"]) == ("partial", 0.5, 3)
    assert found["cost"] == [2, 20, 4]
    assert "l" not in found
    assert "u" not in found


def test_equal_texts_are_kept_once() -> None:
    texts = Texts()
    assert [texts.number(text) for text in ("a", "b", "a", "")] == [1, 2, 1, 0]
    assert texts.all == ["", "a", "b"]


def test_how_a_search_ended_comes_before_what_it_found(tmp_path: Path) -> None:
    solved = (iteration(0, 0, [step("a", "over", 1.0)], 1, 1.0),)
    trees = [Tree("unfinished", solved, None), Tree("none", (), small_tree().end)]
    found = {
        each.header.task_id: encode_tree(each, Texts())
        for each in write_store(tmp_path, trees).trees()
    }
    assert found["unfinished"]["outcome"] == "unfinished"
    assert found["unfinished"]["best"] == 1.0
    assert found["unfinished"]["reason"] == "the search has not ended yet"
    assert (found["none"]["outcome"], found["none"]["best"]) == ("none", None)


def test_numbers_that_json_does_not_have_become_words(tmp_path: Path) -> None:
    rolled = iteration(0, 0, [step("a")], 1, math.nan)
    (stored,) = write_store(tmp_path, [Tree("odd", (rolled,), None)]).trees()
    assert encode_tree(stored, Texts())["v"] == ["nan", "nan"]
    assert plain_settings({"a": [{"b": math.inf}]}) == {"a": [{"b": "inf"}]}


def test_marks_and_learned_values_stand_at_their_nodes(tmp_path: Path) -> None:
    (stored,) = write_store(tmp_path, [small_tree()]).trees()
    prompt = [{"role": "user", "content": "Spell."}]
    pair = {
        "depth": 0,
        "prompt": prompt,
        "chosen": [{"role": "assistant", "content": "Thought: go.\nAction: go[a]"}],
        "rejected": [{"role": "assistant", "content": "go[b]"}],
        "q_chosen": 0.375,
        "q_rejected": 0.0,
    }
    learned = [None, 0.1234567, math.nan, None, None]
    found = encode_tree(stored, Texts(), mark_tree(stored.tree, [pair]), learned)
    assert (found["w"], found["x"]) == ([0, 1, 0, 0, 0], [0, 0, 1, 0, 0])
    assert found["l"] == [None, 0.123457, "nan", None, None]
    assert found["pairs"] == 1

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_collection.cli import main
from data_collection.imports import read_trees
from data_collection.pairs import PairSet, Source, import_pairs
from lit_qagent.core.errors import DataError, OverlapError


def _node(
    action: str, visits: int, value: float, *children: dict[str, Any], **end: float
) -> dict[str, Any]:
    return {
        "state": {"thought": f"try {action}", "action": action, "observation": f"saw {action}"},
        "visits": visits,
        "value": value,
        "reward": end.get("reward", 0),
        "is_terminal": "reward" in end,
        "children": list(children),
    }


def _tree(**changes: object) -> dict[str, Any]:
    good = _node("a", 2, 0.5, _node("c", 1, 1.0, reward=1), _node("d", 0, 0, reward=-0.5))
    root = _node("", 3, 0.3, good, _node("b", 1, 0.1))
    return {**root, "question": "Which?", **changes}


def _write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def _pairs(path: Path, form: str = "trees", **options: object) -> PairSet:
    source = Source(form=form, environment="hotpotqa", **options)  # type: ignore[arg-type]
    return import_pairs(path, source)


@pytest.mark.parametrize("as_text", [json.dumps, lambda tree: json.dumps([tree])])
def test_trees_keep_their_own_values(tmp_path: Path, as_text: Callable[[object], str]) -> None:
    path = _write(tmp_path / "trees.json", as_text(_tree()))
    [stored] = read_trees(path)
    tree = stored.tree
    assert [node.visits for node in tree.nodes] == [3, 2, 1, 1, 0]
    assert [tree.q_hat(node) for node in range(1, 5)] == [0.5, 0.1, 1.0, -0.5]
    pair_set = _pairs(path)
    assert [
        (p.depth, p.chosen[0]["content"], p.rejected[0]["content"], p.q_chosen, p.q_rejected)
        for p in pair_set.pairs
    ] == [
        (0, "Thought: try a\nAction: a", "Thought: try b\nAction: b", 0.5, 0.1),
        (1, "Thought: try c\nAction: c", "Thought: try d\nAction: d", 1.0, -0.5),
    ]
    assert pair_set.pairs[1].prompt == [
        {"role": "user", "content": "Which?"},
        {"role": "assistant", "content": "Thought: try a\nAction: a"},
        {"role": "user", "content": "saw a"},
    ]
    assert pair_set.card.policy["file"] == "trees.json"
    assert pair_set.card.task_ids == ["Which?"]
    assert pair_set.num_unfinished == 0


def test_one_tree_a_line_and_any_rule(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(_tree(id=str(number))) for number in range(3))
    pair_set = _pairs(_write(tmp_path / "trees.jsonl", lines), rule="all_siblings")
    assert (pair_set.card.num_trees, pair_set.card.num_pairs) == (3, 6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; there is nothing to import"),
        ("[]", "holds an empty list"),
        ('{"question": "x"}\nnot json', "line 2 is not JSON"),
        ({"question": "x"}, r"tree 1 is not in the form that is read \(KeyError: 'children'\)"),
        ([_tree(), _tree(question=" ")], "tree 2 .*question is empty"),
        (["text"], "tree 1 is not in the form"),
    ],
)
def test_files_of_another_form_are_refused_by_entry(
    tmp_path: Path, content: object, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        _pairs(_write(tmp_path / "bad.json", content))


def test_an_end_with_children_is_refused(tmp_path: Path) -> None:
    end = _node("a", 1, 1.0, _node("b", 1, 1.0), reward=1)
    root = {**_node("", 1, 1.0, end), "question": "x"}
    with pytest.raises(DataError, match="tree 1: node 1 ended its episode and can have no child"):
        _pairs(_write(tmp_path / "bad.json", root))


def _conversation(**changes: object) -> dict[str, Any]:
    entry = {
        "id": "q1",
        "prompt": [
            {"from": "human", "value": "Which?"},
            {"from": "gpt", "value": "Search[x]"},
            {"from": "human", "value": "saw x"},
        ],
        "chosen": [{"from": "gpt", "value": "Finish[x]"}],
        "rejected": {"from": "gpt", "value": "Finish[y]"},
    }
    return {**entry, **changes}


def test_conversations_become_pairs(tmp_path: Path) -> None:
    path = _write(tmp_path / "pairs.json", [_conversation()])
    [pair] = _pairs(path, "conversations").pairs
    assert pair.depth == 1
    assert [message["role"] for message in pair.prompt] == ["user", "assistant", "user"]
    assert pair.chosen == [{"role": "assistant", "content": "Finish[x]"}]
    assert pair.rejected == [{"role": "assistant", "content": "Finish[y]"}]
    [head_only] = _pairs(path, "conversations", head_messages=3).pairs
    assert head_only.depth == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chosen": []}, "a list of messages is empty"),
        ({"chosen": [{"from": "robot", "value": "x"}]}, "'from' must be one of .*, got 'robot'"),
        ({"chosen": [{"from": "gpt", "value": " "}]}, "a message is empty"),
        ({"chosen": [{"from": "human", "value": "x"}]}, "must begin with the agent's message"),
        ({"prompt": [{"from": "gpt", "value": "x"}]}, "ends with the agent's own message"),
        ({"prompt": [{"from": "human", "value": "x"}] * 2}, "set --head_messages"),
    ],
)
def test_conversations_of_another_form_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = _write(tmp_path / "bad.json", [_conversation(), _conversation(**changes)])
    with pytest.raises(DataError, match=f"pair 2 .*{message}"):
        _pairs(path, "conversations")


def test_evaluation_tasks_among_the_imported_ones_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "pairs.json", [_conversation()])
    source = Source(form="conversations", environment="hotpotqa")
    with pytest.raises(OverlapError, match="1 of the searched tasks are evaluation tasks"):
        import_pairs(path, source, evaluation_ids={"q1"})


@pytest.mark.integration
def test_an_import_is_a_folder_that_training_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lit_qagent.data.pairs import pair_history, read_pairs

    path = _write(tmp_path / "pairs.json", [_conversation()])
    folder = tmp_path / "pairs"
    options = ["--form", "conversations", "--environment", "hotpotqa"]
    assert main(["import", "--file", str(path), "--output", str(folder), *options]) == 0
    assert "1 pairs from 1 trees" in capsys.readouterr().out
    [pair] = read_pairs(folder).pairs
    assert pair_history(pair).num_steps == 1

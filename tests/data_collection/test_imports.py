import json
from pathlib import Path
from typing import Any

import pytest

from data_collection.cli import main
from data_collection.imported_trees import read_trees
from data_collection.pairs import PairSet, Source, import_pairs
from lit_qagent.core.errors import DataError, OverlapError

# The shapes are those of the original's files; words and values are made up.
HEAD = [
    {"role": "user", "content": "Answer with Search, Lookup and Finish."},
    {"role": "assistant", "content": "OK"},
    {"role": "user", "content": "Question: How high is the old tower?"},
    {"role": "assistant", "content": "Thought: I look. Action: Search[old tower]"},
    {"role": "user", "content": "Observation: It is 30 m high."},
    {"role": "assistant", "content": "Thought: Done. Action: Finish[30 m]"},
    {"role": "user", "content": "Question: Which?"},
]


def _node(
    action: str, visits: int, value: float, *children: dict[str, Any], **more: object
) -> dict[str, Any]:
    """One node as the original writes it: no children are null, messages are the root's alone."""
    return {
        "state": {"action": action, "observation": f"Observation: saw {action}" if action else ""},
        "question": "Question: Which?",
        "children": list(children) or None,
        "visits": visits,
        "value": value,
        "depth": 0,
        "is_terminal": "reward" in more and more["reward"] != -1,
        "reward": 0,
        "em": 0,
        "messages": None,
        **more,
    }


def _tree(**changes: object) -> dict[str, Any]:
    """As for HotPotQA: a wrong answer has reward 0 and counts as -1 once it was visited."""
    good = _node(
        "Thought: try. Action: Search[a]",
        4,
        0.5,
        _node("Action: Finish[c]", 0, 0, reward=0),
        _node("Action: Finish[d]", 2, 1.0, reward=1),
        _node("Action: Finish[e]", 1, -1.0, reward=0),
        _node("Action: Finish[f]", 1, 1.0, reward=1),
    )
    root = _node("", 6, 0.3, _node("Action: Search[b]", 1, -1.0), good, _node("Action: x", 0, 0))
    more = {"messages": HEAD, "best reward": 1, "best_trajectory_index_list": [1, 1]}
    return {**root, **more, **changes}


def _shop_tree() -> dict[str, Any]:
    """As for WebShop: nodes begin with the reward of their step, refused actions have -1."""
    page = _node(
        "Thought: look.\nAction: search[lamp]",
        2,
        0.4,
        _node("Action: click[sky]", 0, -1, reward=-1),
        _node("Action: click[Buy Now]", 1, 0.75, reward=0.75),
        _node("Action: click[b1]", 1, 0.05),
    )
    root = _node("", 4, 0.1, page, _node("Action: search[x]", 1, -0.5))
    return {**root, "messages": HEAD, "best_trajectory_index_list": [0, 1]}


def _released_pairs(root: dict[str, Any]) -> list[dict[str, Any]]:
    """Naively: along the stored path, the child of highest value against that of lowest."""
    prompt = [root["messages"][0], root["messages"][1], root["messages"][-1]]
    pairs = []
    node = root
    for index in root["best_trajectory_index_list"]:
        if node is not root:
            state = node["state"]
            prompt = [*prompt, {"role": "assistant", "content": state["action"]}]
            prompt = [*prompt, {"role": "user", "content": state["observation"]}]
        values = [child["value"] for child in node["children"]]
        best, worst = values.index(max(values)), values.index(min(values))
        if best != worst:
            sides = [node["children"][each]["state"]["action"] for each in (best, worst)]
            pairs.append({"prompt": prompt, "sides": sides})
        node = node["children"][index]
    return pairs


def _write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def _pairs(path: Path, form: str = "trees", **options: object) -> PairSet:
    source = Source(form=form, environment="hotpotqa", **options)  # type: ignore[arg-type]
    return import_pairs(path, source)


@pytest.mark.parametrize("tree", [_tree(), _shop_tree()], ids=["hotpotqa", "webshop"])
def test_the_rule_as_released_makes_the_pairs_of_the_originals_script(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    found = _pairs(_write(tmp_path / "5706.json", tree), rule="as_released")
    expected = _released_pairs(tree)
    assert len(expected) == 2
    assert [
        {"prompt": p.prompt, "sides": [p.chosen[0]["content"], p.rejected[0]["content"]]}
        for p in found.pairs
    ] == expected
    assert found.card.task_ids == ["5706"]


def test_a_folder_holds_a_tree_per_file_named_after_its_task(tmp_path: Path) -> None:
    folder = tmp_path / "trajectories"
    folder.mkdir()
    for number in (104, 17, 9):
        _write(folder / f"{number}.json", _tree())
    (folder / "notes.txt").write_text("not a tree")
    found = _pairs(folder, rule="all_siblings")
    assert [stored.header.task_id for stored in read_trees(folder)] == ["9", "17", "104"]
    assert (found.card.num_trees, found.card.task_ids) == (3, ["104", "17", "9"])
    assert found.card.policy["file"] == "trajectories"
    before = found.card.policy["sha256"]
    _write(folder / "17.json", _shop_tree())
    assert _pairs(folder).card.policy["sha256"] != before
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"has no file \*.json; there is nothing to import"):
        _pairs(empty)


def test_trees_keep_their_own_values_and_the_chat_of_their_root(tmp_path: Path) -> None:
    path = _write(tmp_path / "trees.json", [_tree(), _tree()])
    tree = next(iter(read_trees(path))).tree
    assert [node.visits for node in tree.nodes] == [6, 1, 4, 0, 2, 1, 1, 0]
    # Nothing is known of the last: it was not visited, is no end and has no value of its own.
    assert [tree.q_hat(node) for node in range(1, 8)] == [-1.0, 0.5, 0.0, 1.0, -1.0, 1.0, None]
    pair_set = _pairs(path)
    first, second = pair_set.pairs[:2]
    assert (first.depth, first.q_chosen, first.q_rejected) == (0, 0.5, -1.0)
    assert first.chosen[0]["content"] == "Thought: try. Action: Search[a]"
    assert first.prompt == HEAD
    # Of equal ends the first is taken, as the path in the file says.
    assert second.chosen[0]["content"] == "Action: Finish[d]"
    assert second.rejected[0]["content"] == "Action: Finish[e]"
    assert second.prompt[len(HEAD) :] == [
        {"role": "assistant", "content": "Thought: try. Action: Search[a]"},
        {"role": "user", "content": "Observation: saw Thought: try. Action: Search[a]"},
    ]
    assert pair_set.card.task_ids == ["Question: Which?"]
    assert pair_set.num_unfinished == 0


def test_refused_actions_of_a_shop_are_invalid(tmp_path: Path) -> None:
    [stored] = read_trees(_write(tmp_path / "1.json", _shop_tree()))
    steps = [node.step for node in stored.tree.nodes if node.step is not None]
    assert [step.valid for step in steps] == [True, False, True, True, True]
    assert [step.reward for step in steps] == [0.0, 0.0, 0.75, 0.0, 0.0]
    assert [step.is_last for step in steps] == [False, False, True, False, False]


def test_a_tree_without_success_gives_no_pair_and_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "trees"
    folder.mkdir()
    _write(folder / "1.json", _tree())
    failed = _node("", 1, -1.0, _node("Action: Finish[z]", 1, -1.0, reward=0))
    _write(folder / "2.json", {**failed, "messages": HEAD, "best_trajectory_index_list": []})
    found = _pairs(folder)
    assert found.card.removed["trees_without_positive_reward"] == 1


def test_pairs_with_an_empty_action_are_left_out_and_counted(tmp_path: Path) -> None:
    tree = _tree()
    tree["children"][0]["state"]["action"] = " "
    found = _pairs(_write(tmp_path / "1.json", tree))
    assert found.card.removed["pairs_with_an_empty_message"] == 1
    assert [pair.depth for pair in found.pairs] == [1]


def test_one_tree_a_line_and_any_rule(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(_tree(id=str(number))) for number in range(3))
    pair_set = _pairs(_write(tmp_path / "trees.jsonl", lines), rule="all_siblings")
    assert pair_set.card.task_ids == ["0", "1", "2"]
    # At the root 0.5 > -1; below it 1, 1 > 0 > -1.
    assert (pair_set.card.num_trees, pair_set.card.num_pairs) == (3, 3 * 6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; there is nothing to import"),
        ("[]", "holds an empty list"),
        ('{"question": "x"}\nnot json', "line 2 is not JSON"),
        ({"question": "x"}, r"tree 1 is not in the form that is read \(KeyError: 'is_terminal'\)"),
        (_tree(messages=HEAD[:2]), "tree 1 .*must end with the task"),
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
    root = _node("", 1, 1.0, end)
    with pytest.raises(DataError, match="tree 1: node 1 ended its episode and can have no child"):
        _pairs(_write(tmp_path / "bad.json", root))


def _conversation(**changes: object) -> dict[str, Any]:
    """As the original's training file: no id, and three messages before the first step."""
    entry = {
        "prompt": [
            {"from": "human", "value": "Answer with Search, Lookup and Finish."},
            {"from": "gpt", "value": "OK"},
            {"from": "human", "value": "Question: Which?"},
            {"from": "gpt", "value": "Search[x]"},
            {"from": "human", "value": "Observation: saw x"},
        ],
        "chosen": [{"from": "gpt", "value": "Finish[x]"}],
        "rejected": [{"from": "gpt", "value": "Finish[y]"}],
    }
    return {**entry, **changes}


def test_conversations_become_pairs(tmp_path: Path) -> None:
    short = _conversation(prompt=_conversation()["prompt"][:3])
    path = _write(tmp_path / "pairs.json", [short, _conversation(), _conversation(id="q1")])
    found = _pairs(path, "conversations")
    assert [pair.depth for pair in found.pairs] == [0, 1, 1]
    pair = found.pairs[1]
    assert [message["role"] for message in pair.prompt] == ["user", "assistant"] * 2 + ["user"]
    assert pair.chosen == [{"role": "assistant", "content": "Finish[x]"}]
    assert pair.rejected == [{"role": "assistant", "content": "Finish[y]"}]
    # Without an id a task is known by its text.
    assert found.card.task_ids == ["Question: Which?", "q1"]
    assert found.card.num_trees == 2
    plain = _write(tmp_path / "plain.json", [_conversation(prompt=_conversation()["prompt"][2:])])
    [other] = _pairs(plain, "conversations", head_messages=1).pairs
    assert other.depth == 1


def test_conversations_with_an_empty_action_are_left_out_and_counted(tmp_path: Path) -> None:
    empty = _conversation(rejected=[{"from": "gpt", "value": " "}])
    found = _pairs(_write(tmp_path / "pairs.json", [_conversation(), empty]), "conversations")
    assert found.card.num_pairs == 1
    assert found.card.removed == {"pairs_with_an_empty_message": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chosen": []}, "a list of messages is empty"),
        ({"chosen": [{"from": "robot", "value": "x"}]}, "'from' must be one of .*, got 'robot'"),
        ({"chosen": [{"from": "gpt", "value": None}]}, "'value' must be a text, got NoneType"),
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
    path = _write(tmp_path / "pairs.json", [_conversation(id="q1")])
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

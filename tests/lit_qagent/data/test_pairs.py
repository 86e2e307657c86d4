"""A folder of pairs is read whole or refused with the cure."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from lit_qagent.core.errors import DataError
from lit_qagent.core.pairs import CARD_FILE, PAIR_FILE
from lit_qagent.data.pairs import pair_history, read_pairs
from tests.pair_folder import make_episodes, make_pair, make_pairs, write_card, write_pairs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs", make_pairs(2))


def test_pairs_and_card_read_back_as_written(folder: Path) -> None:
    found = read_pairs(folder)

    assert found.pairs == tuple(make_pairs(2))
    assert found.card.num_pairs == 4
    assert found.card.removed == {"no_sibling": 2}


def test_the_last_messages_of_a_prompt_are_steps() -> None:
    history = pair_history(make_pair(0, 2))

    assert [message.role for message in history.head] == ["system", "user"]
    assert [message.content for message in history.turns] == [
        "open[door]",
        "Door 0 is open.",
        "open[door]",
        "Door 1 is open.",
    ]


def test_a_depth_beyond_the_prompt_is_refused() -> None:
    with pytest.raises(DataError, match=r"'task-0' has depth 4, so at least 9 .* got 4"):
        pair_history(replace(make_pair(0, 1), depth=4))


def test_a_missing_folder_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; make it with `python -m data_collection"):
        read_pairs(tmp_path / "nothing")


def test_a_folder_without_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"has no {PAIR_FILE}"):
        read_pairs(tmp_path)


def test_a_folder_without_card_is_refused(folder: Path) -> None:
    (folder / CARD_FILE).unlink()

    with pytest.raises(DataError, match=f"has no {CARD_FILE}"):
        read_pairs(folder)


def test_a_card_that_is_not_json_is_refused(folder: Path) -> None:
    (folder / CARD_FILE).write_text("{", encoding="utf-8")

    with pytest.raises(DataError, match="is not JSON"):
        read_pairs(folder)


def test_a_card_that_is_no_object_is_refused(folder: Path) -> None:
    (folder / CARD_FILE).write_text("[]", encoding="utf-8")

    with pytest.raises(DataError, match="must hold a JSON object"):
        read_pairs(folder)


def test_another_schema_version_is_refused(folder: Path) -> None:
    write_card(folder, schema_version=2)

    with pytest.raises(DataError, match="has schema version 2, this program reads 1"):
        read_pairs(folder)


def test_a_card_with_a_missing_field_is_refused(folder: Path) -> None:
    values = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    del values["task_ids"]
    (folder / CARD_FILE).write_text(json.dumps(values), encoding="utf-8")

    with pytest.raises(DataError, match="lacks task_ids"):
        read_pairs(folder)


def test_a_file_that_was_changed_after_its_card_is_refused(folder: Path) -> None:
    write_card(folder, pairs_hash="0" * 64)

    with pytest.raises(DataError, match=r"has SHA-256 .* its card says 0+: the file was changed"):
        read_pairs(folder)


def test_a_corrupt_file_is_refused(folder: Path) -> None:
    (folder / PAIR_FILE).write_bytes(b"PAR1 and no more")

    with pytest.raises(DataError, match="cannot be read as parquet"):
        read_pairs(folder)


def test_a_missing_column_is_named(folder: Path) -> None:
    pq.write_table(pq.read_table(folder / PAIR_FILE).drop(["q_rejected"]), folder / PAIR_FILE)
    write_card(folder)

    with pytest.raises(DataError, match="lacks the columns q_rejected"):
        read_pairs(folder)


def test_no_pairs_at_all_is_refused_with_what_was_removed(folder: Path) -> None:
    pq.write_table(pq.read_table(folder / PAIR_FILE).slice(0, 0), folder / PAIR_FILE)
    write_card(folder)

    with pytest.raises(DataError, match=r"has no pairs; .* \{'no_sibling': 2\}"):
        read_pairs(folder)


def test_an_empty_cell_is_named_with_its_row(folder: Path) -> None:
    table = pq.read_table(folder / PAIR_FILE)
    values = table.column("q_chosen").to_pylist()
    values[1] = None
    position = table.column_names.index("q_chosen")
    pq.write_table(table.set_column(position, "q_chosen", pa.array(values)), folder / PAIR_FILE)
    write_card(folder)

    with pytest.raises(DataError, match="row 1 has no q_chosen"):
        read_pairs(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chosen": []}, "chosen must be a list of chat messages"),
        ({"prompt": [{"role": "robot", "content": "x"}]}, "prompt must be a list of chat messages"),
        ({"rejected": [{"role": "user", "content": "x"}]}, "must be one assistant message"),
        ({"chosen": [{"role": "assistant", "content": " "}]}, "has an empty chosen action"),
    ],
)
def test_bad_messages_are_refused(
    tmp_path: Path, changes: dict[str, list[dict[str, str]]], message: str
) -> None:
    write_pairs(tmp_path, [make_pair(0, 0), make_pair(1, 0, **changes)])

    with pytest.raises(DataError, match=f"row 1.* {message}"):
        read_pairs(tmp_path)


def test_whole_episodes_are_pairs_too(tmp_path: Path) -> None:
    found = read_pairs(write_pairs(tmp_path, [make_episodes(0), make_episodes(1)]))

    assert [len(pair.chosen) for pair in found.pairs] == [3, 3]
    assert [len(pair.rejected) for pair in found.pairs] == [5, 5]


@pytest.mark.parametrize("messages", [slice(0, 2), slice(1, 3)], ids=["open end", "no action"])
def test_episodes_begin_and_end_with_an_action(tmp_path: Path, messages: slice) -> None:
    pair = make_episodes(0)
    write_pairs(tmp_path, [replace(pair, chosen=pair.chosen[messages])])

    with pytest.raises(DataError, match=r"row 0, chosen must be one .* from an assistant's to"):
        read_pairs(tmp_path)


def test_equal_episodes_are_refused(tmp_path: Path) -> None:
    pair = make_episodes(0)
    write_pairs(tmp_path, [replace(pair, rejected=pair.chosen)])

    with pytest.raises(DataError, match="equal chosen and rejected"):
        read_pairs(tmp_path)

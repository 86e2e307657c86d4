import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from lit_qagent.core.errors import DataError
from lit_qagent.environments.webshop import records
from lit_qagent.environments.webshop.records import JsonArray, read_object


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("block", [1, 2, 7, 64, 1 << 20])
def test_records_are_the_same_for_every_size_of_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(records, "_BLOCK_BYTES", block)
    expected: list[dict[str, Any]] = [
        {},
        {"a": '\u65e5\u672c \U0001f600 " \\ ]}', "b": [1.5e-3, None, True, {"c": []}]},
        {"long": "x" * 300},
        {"n": -12345678901234567890},
    ]
    for text in (json.dumps(expected), json.dumps(expected, ensure_ascii=False, indent=3) + "\n"):
        array = JsonArray(write(tmp_path / "x.json", text.encode()))
        assert list(array) == expected
        assert array.sha256 == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n ", "is empty"),
        (b'{"a": 1}', "does not hold a JSON array"),
        (b"[", "damaged or truncated at record 0: the file ends"),
        (b'[{"a": 1}', "damaged or truncated at record 1: the file ends there"),
        (b'[{"a": 1},', "damaged or truncated at record 1: the file ends there"),
        (b'[{"a": 1}, {"b": "tex', "at record 1: the file ends within it"),
        (b'[{"a": 1}, {"b": 1.', "at record 1: the file ends within it"),
        (b'[{"a": 1} {"b": 2}]', "at record 1: expected , or ]"),
        (b'[{"a": 1}, 3]', "at record 1: expected an object, got int"),
        (b'[{"a": 1}, {b: 2, "' + b"x" * 100 + b'": 3}]', "at record 1: Expecting property name"),
        (b'[{"a": 1}] more', "text follows the end of the array"),
        (b'[{"a": "\xff"}]', "at record 0: it is not UTF-8"),
        (b'[{"a": ' + b"[" * 200_000, "at record 0: it is nested too deeply"),
    ],
)
def test_a_damaged_file_is_named_with_the_record(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=rf"bad\.json .*{message}.*princeton-nlp/WebShop"):
        list(JsonArray(write(tmp_path / "bad.json", content)))


def test_a_record_that_never_ends_is_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_BLOCK_BYTES", 100)
    monkeypatch.setattr(records, "_MAX_RECORD_CHARS", 1000)
    path = write(tmp_path / "bad.json", b'[{"a": "' + b"x" * 100_000)
    array = JsonArray(path)
    with pytest.raises(DataError, match="at record 0: Unterminated string"):
        list(array)
    assert len(array._text) < 5000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b'{"a": {', "is not valid JSON, perhaps truncated"),
        (b"[1]", "holds a JSON list, expected an object"),
        (b"\xff", "is not valid JSON"),
    ],
)
def test_a_file_that_is_no_object(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"bad\.json {message}"):
        read_object(write(tmp_path / "bad.json", content))


def test_a_missing_file_says_where_to_get_it(tmp_path: Path) -> None:
    for read in (lambda path: list(JsonArray(path)), read_object):
        with pytest.raises(DataError, match=r"gone\.json: No such file.*princeton-nlp/WebShop"):
            read(tmp_path / "gone.json")

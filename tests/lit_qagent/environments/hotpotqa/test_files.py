from pathlib import Path

import pytest

from lit_qagent.core.errors import DataError
from lit_qagent.environments.hotpotqa.files import read_questions
from tests.lit_qagent.environments.hotpotqa.question_files import make_record, write_questions


def test_records_are_read(tmp_path: Path) -> None:
    path = write_questions(tmp_path / "q.json", [make_record(7)])
    [question] = read_questions(path).questions
    assert (question.question_id, question.answer, question.kind) == ("q7", "Ines Brandt", "bridge")
    assert question.pages[0].title == "Aske River"
    assert question.pages[0].sentences[1] == "It rises near Vardholm."


def test_the_hash_depends_on_the_content(tmp_path: Path) -> None:
    files = [write_questions(tmp_path / f"{n}.json", [make_record(n)]) for n in (1, 2)]
    first, second = (read_questions(file).sha256 for file in files)
    assert first != second
    assert len(first) == 64


def test_a_missing_file_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.json: No such file.*hotpotqa\.github\.io"):
        read_questions(str(tmp_path / "gone.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b'[{"_id": "q', "is not valid JSON"),
        (b"\xff\xfe\x00", "is not valid JSON"),
        (b"[]", "holds no questions"),
        (b'{"answer": {}}', "holds a JSON dict, expected an array"),
        (b"[3]", "record 0: expected an object, got int"),
    ],
)
def test_a_file_that_is_no_question_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"bad\.json.*{message}.*https://hotpotqa\.github\.io"):
        read_questions(str(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": None}, "'answer' must be text, got None .*official test files have none"),
        ({"question": "  "}, "'question' must be text, got '  '"),
        ({"type": 3}, "'type' must be text, got 3"),
        ({"context": None}, r"'context' must list \[title, sentences\] pairs"),
        ({"context": [["A", "not a list"]]}, "a paragraph of 'context' is not"),
        ({"context": [["A", ["ok", 3]]]}, "a paragraph of 'context' is not"),
    ],
)
def test_a_record_of_another_form_is_named(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = write_questions(tmp_path / "q.json", [make_record(1), make_record(2, **changes)])
    with pytest.raises(DataError, match=rf"q\.json, record 1 \(_id 'q2'\): {message}"):
        read_questions(path)

"""Reads questions and their pages: official JSON files, Parquet, saved or hub datasets."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_qagent.core.errors import DataError
from lit_qagent.core.text import clean_line
from lit_qagent.environments.docstore import Page
from lit_qagent.environments.hotpotqa.rows import is_dataset, read_rows

SOURCE = (
    "get hotpot_train_v1.1.json or hotpot_dev_distractor_v1.json from https://hotpotqa.github.io"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One record of a file.

    Attributes:
        question_id: Unique over all splits.
        question: The text.
        answer: The gold answer.
        kind: ``bridge`` or ``comparison``.
        level: ``easy``, ``medium`` or ``hard``.
        pages: The paragraphs given with it, gold and distractors.
    """

    question_id: str
    question: str
    answer: str
    kind: str
    level: str
    pages: tuple[Page, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionFile:
    """What one file holds, and the SHA-256 of its bytes."""

    questions: tuple[Question, ...]
    sha256: str


def read_questions(source: str, *, needs_pages: bool = True) -> QuestionFile:
    """Read questions.

    Args:
        source: A JSON file in the official distractor or fullwiki form, or what `read_rows` reads.
        needs_pages: Refuse a question without context.

    Raises:
        DataError: The source is missing, empty, damaged or not in the official form.
    """
    if is_dataset(source):
        rows = read_rows(source)
        content = json.dumps(rows, sort_keys=True, default=str).encode()
    else:
        content = _read_bytes(Path(source))
        rows = _read_json(content, source)
    if not rows:
        raise DataError(f"HotPotQA file {source} holds no questions; {SOURCE}")
    questions = tuple(
        _parse(record, f"HotPotQA file {source}, record {number}", needs_pages=needs_pages)
        for number, record in enumerate(rows)
    )
    _refuse_repeats(questions, source)
    return QuestionFile(questions=questions, sha256=hashlib.sha256(content).hexdigest())


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read HotPotQA file {path}: {error.strerror}; {SOURCE}") from error
    if not content.strip():
        raise DataError(f"HotPotQA file {path} is empty; {SOURCE}")
    return content


def _read_json(content: bytes, source: str) -> list[Any]:
    try:
        records = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"HotPotQA file {source} is not valid JSON ({error}); {SOURCE}") from error
    if not isinstance(records, list):
        raise DataError(
            f"HotPotQA file {source} holds a JSON {type(records).__name__}, "
            f"expected an array of questions; {SOURCE}"
        )
    return records


def _refuse_repeats(questions: tuple[Question, ...], source: str) -> None:
    first: dict[str, int] = {}
    for number, question in enumerate(questions):
        if question.question_id in first:
            raise DataError(
                f"HotPotQA file {source}, record {number}: _id {question.question_id!r} is also "
                f"that of record {first[question.question_id]}; ids are unique"
            )
        first[question.question_id] = number


def _parse(record: object, where: str, *, needs_pages: bool) -> Question:
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: expected an object, got {type(record).__name__}; {SOURCE}")
    id_key = "id" if "id" in record and "_id" not in record else "_id"
    if record.get(id_key):
        where += f" ({id_key} {record[id_key]!r})"
    context = record.get("context")
    pages = _parse_context(context, where) if needs_pages or context else ()
    return Question(
        question_id=_text(record, id_key, where),
        question=_text(record, "question", where),
        answer=_text(record, "answer", where),
        kind=_text(record, "type", where),
        level=_text(record, "level", where),
        pages=pages,
    )


def _text(record: Mapping[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    text = clean_line(value) if isinstance(value, str) else ""
    if not text:
        note = " (the official test files have none)" if key == "answer" else ""
        raise DataError(f"{where}: {key!r} must be text, got {value!r:.80}{note}; {SOURCE}")
    return text


def _parse_context(context: object, where: str) -> tuple[Page, ...]:
    """Read ``[[title, sentences], ...]`` or the hub's ``{title: [...], sentences: [...]}``."""
    if isinstance(context, Mapping):
        columns = (context.get("title"), context.get("sentences"))
        titles, texts = (column if isinstance(column, list) else [] for column in columns)
        if len(titles) != len(texts):
            raise DataError(
                f"{where}: 'context' has {len(titles)} titles and {len(texts)} lists of "
                f"sentences, expected as many; {SOURCE}"
            )
        context = [list(pair) for pair in zip(titles, texts, strict=True)]
    if not isinstance(context, list) or not context:
        raise DataError(f"{where}: 'context' must list [title, sentences] pairs; {SOURCE}")
    pages = []
    for entry in context:
        if not _is_paragraph(entry):
            raise DataError(
                f"{where}: a paragraph of 'context' is not [title, [sentence, ...]], "
                f"got {str(entry)[:80]!r}; {SOURCE}"
            )
        title, sentences = entry
        kept = tuple(filter(None, map(clean_line, sentences)))
        pages.append(Page(title=clean_line(title), sentences=kept))
    return tuple(pages)


def _is_paragraph(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 2
        and isinstance(entry[0], str)
        and isinstance(entry[1], list)
        and all(isinstance(sentence, str) for sentence in entry[1])
    )

"""Reads questions and their pages from files in the official HotPotQA distractor form."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_qagent.core.errors import DataError
from lit_qagent.environments.docstore import Page

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


def read_questions(path: Path) -> QuestionFile:
    """Read a file.

    Raises:
        DataError: The file is missing, empty, not JSON or not in the official form.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read HotPotQA file {path}: {error.strerror}; {SOURCE}") from error
    if not content.strip():
        raise DataError(f"HotPotQA file {path} is empty; {SOURCE}")
    try:
        records = json.loads(content)
    except ValueError as error:
        raise DataError(f"HotPotQA file {path} is not valid JSON ({error}); {SOURCE}") from error
    if not isinstance(records, list):
        raise DataError(
            f"HotPotQA file {path} holds a JSON {type(records).__name__}, "
            f"expected an array of questions; {SOURCE}"
        )
    if not records:
        raise DataError(f"HotPotQA file {path} holds no questions; {SOURCE}")
    questions = tuple(_parse(record, path, number) for number, record in enumerate(records))
    return QuestionFile(questions=questions, sha256=hashlib.sha256(content).hexdigest())


def _parse(record: object, path: Path, number: int) -> Question:
    where = f"HotPotQA file {path}, record {number}"
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: expected an object, got {type(record).__name__}; {SOURCE}")
    if record.get("_id"):
        where += f" (_id {record['_id']!r})"
    return Question(
        question_id=_text(record, "_id", where),
        question=_text(record, "question", where),
        answer=_text(record, "answer", where),
        kind=_text(record, "type", where),
        level=_text(record, "level", where),
        pages=_parse_context(record.get("context"), where),
    )


def _text(record: Mapping[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        note = " (the official test files have none)" if key == "answer" else ""
        raise DataError(f"{where}: {key!r} must be text, got {value!r}{note}; {SOURCE}")
    return value.strip()


def _parse_context(context: object, where: str) -> tuple[Page, ...]:
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
        kept = tuple(sentence.strip() for sentence in sentences if sentence.strip())
        pages.append(Page(title=title, sentences=kept))
    return tuple(pages)


def _is_paragraph(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 2
        and isinstance(entry[0], str)
        and isinstance(entry[1], list)
        and all(isinstance(sentence, str) for sentence in entry[1])
    )

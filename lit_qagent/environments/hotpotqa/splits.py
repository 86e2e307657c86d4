"""Splits of the questions: whole files, lists of positions in them, and a manifest of both."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_qagent.core import manifest
from lit_qagent.core.errors import ConfigError, DataError
from lit_qagent.core.records import Task
from lit_qagent.environments.hotpotqa.files import QuestionFile


@dataclass(frozen=True, kw_only=True)
class IndexList:
    """A split chosen from another by position, such as 100 test questions of the training file.

    Attributes:
        of: The split that is chosen from, one of ``data``.
        path: Positions from 0: a JSON array, or a text with white space or commas between them.
    """

    of: str
    path: str


def make_tasks(
    files: Mapping[str, QuestionFile],
    sources: Mapping[str, str],
    index_lists: Mapping[str, IndexList],
) -> dict[str, list[Task]]:
    """Return the tasks of every file and of every list of positions.

    Raises:
        ConfigError: A list has the name of a file's split, or chooses from none.
        DataError: A question comes in two files or two lists, or a list cannot be read.
    """
    tasks = {split: _tasks(split, file) for split, file in files.items()}
    home: dict[str, str] = {}
    for split, own in tasks.items():
        _claim(own, f"{split!r} ({sources[split]})", home)
    home = {}
    for split, chosen in index_lists.items():
        if split in files or chosen.of not in files:
            raise ConfigError(
                f"index_lists.{split} chooses from {chosen.of!r}; expected a new split name and "
                f"one of {', '.join(files)} to choose from"
            )
        whole = tasks[chosen.of]
        positions = read_positions(Path(chosen.path), len(whole))
        tasks[split] = [_moved(whole[position], split) for position in positions]
        _claim(tasks[split], f"{split!r} ({chosen.path})", home)
    return tasks


def read_positions(path: Path, num_questions: int) -> list[int]:
    """Read a list of positions.

    Raises:
        DataError: The file is missing, empty or holds anything but different whole numbers from
            0 to ``num_questions - 1``.
    """
    try:
        text = path.read_text(encoding="utf-8")
        is_json = text.lstrip().startswith("[")
        entries = json.loads(text) if is_json else text.replace(",", " ").split()
    except OSError as error:
        raise DataError(f"cannot read index list {path}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(
            f"index list {path} is neither text nor a JSON array ({error}); "
            "write pickled lists out as text, one position a line"
        ) from error
    if not entries:
        raise DataError(f"index list {path} is empty; expected positions from 0")
    positions = [
        _position(entry, f"index list {path}, entry {number}", num_questions)
        for number, entry in enumerate(entries)
    ]
    if len(set(positions)) < len(positions):
        twice = next(p for p in positions if positions.count(p) > 1)
        raise DataError(f"index list {path} names position {twice} twice; name each once")
    return positions


def describe_splits(
    tasks: Mapping[str, Sequence[Task]], files: Mapping[str, QuestionFile]
) -> dict[str, dict[str, Any]]:
    """Return what tells a split from any other: its size and the hashes of its content."""
    described: dict[str, dict[str, Any]] = {}
    for split, own in tasks.items():
        rows = [[task.task_id, task.instruction, task.data["answer"]] for task in own]
        content = json.dumps(rows).encode()
        described[split] = {
            "num_questions": len(own),
            "questions_sha256": hashlib.sha256(content).hexdigest(),
        }
        if split in files:
            described[split]["source_sha256"] = files[split].sha256
    return described


def check_manifest(path: Path, splits: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare the splits with those a manifest names; write the manifest if there is none.

    Raises:
        DataError: A split is not the one in the manifest, or is not in it.
        StoreError: The manifest is damaged.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_json(path, splits)
        return
    recorded = manifest.read(path, "HotPotQA manifest")
    found = manifest.differences({split: recorded.get(split) for split in splits}, splits)
    if found:
        lines = "".join(f"\n  {line}" for line in found)
        raise DataError(
            f"HotPotQA manifest {path} names other splits:{lines}\n"
            "use the files it was written for, or delete it to have it written anew"
        )


def _tasks(split: str, file: QuestionFile) -> list[Task]:
    return [
        Task(
            task_id=question.question_id,
            instruction=question.question,
            split=split,
            data={"answer": question.answer, "type": question.kind, "level": question.level},
        )
        for question in file.questions
    ]


def _moved(task: Task, split: str) -> Task:
    return Task(task_id=task.task_id, instruction=task.instruction, split=split, data=task.data)


def _claim(tasks: Sequence[Task], where: str, home: dict[str, str]) -> None:
    """Note where each question is; none may be in two places."""
    for task in tasks:
        if task.task_id in home:
            raise DataError(
                f"HotPotQA question {task.task_id!r} is in split {home[task.task_id]} and again "
                f"in split {where}; give every split its own questions"
            )
        home[task.task_id] = where


def _position(entry: object, where: str, num_questions: int) -> int:
    text = str(entry)
    if not (text.isascii() and text.isdigit()):
        raise DataError(f"{where}: expected a position from 0, got {text[:40]!r}")
    position = int(text[:20])
    if position >= num_questions:
        raise DataError(
            f"{where}: position {text[:20]} is out of range, the file has {num_questions} "
            f"questions (0 to {num_questions - 1}); use the file that the list was made for"
        )
    return position

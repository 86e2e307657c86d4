"""A file of requests and answers that survives kill -9: a header, then one JSON line per answer.

A request is named by a hash of everything that decides its answer. With a seed it has one answer;
without one it may have several, which are given out in the order in which they were asked for.
"""

import fcntl
import json
import logging
import os
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_qagent.core.errors import DataError, StoreError
from lit_qagent.core.manifest import differences
from lit_qagent.policies.recorded_answers import Recorded, Request

SCHEMA_VERSION = 1
_SHOWN_CHARACTERS = 120

_log = logging.getLogger(__name__)


class Recording:
    """The answers in a file, to be read or, by one process at a time, to be added to.

    Attributes:
        settings: Of the policy that has answered.
        num_torn: 1 if the file ended in a line that a kill had cut short, else 0.

    Args:
        path: The file; made if it is to be written.
        settings: Of the policy that will answer; None only reads.

    Raises:
        DataError: No file to read, or a damaged one.
        StoreError: The file is being written by another process, is that of another policy, or
            cannot be written.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.num_torn = 0
        self._lock = threading.Lock()
        self._answers: dict[str, dict[int, Recorded]] = {}
        self._chats: set[str] = set()
        self._asked: Counter[str] = Counter()
        self._file = None if settings is None else self._open_to_write()
        try:
            self.settings = self._load(settings)
        except BaseException:
            self.close()
            raise
        self._indices = {key: sorted(answers) for key, answers in self._answers.items()}

    def next(self, request: Request) -> tuple[int, Recorded | None]:
        """Return the place of a request among those of its key, and its answer if there is one."""
        with self._lock:
            if request.seed is not None:
                return 0, self._answers.get(request.key, {}).get(0)
            number = self._asked[request.key]
            self._asked[request.key] += 1
            known = self._indices.get(request.key, [])
            if number < len(known):
                return known[number], self._answers[request.key][known[number]]
            return number - len(known) + (known[-1] + 1 if known else 0), None

    def add(self, request: Request, index: int, answer: Recorded) -> Recorded:
        """Write an answer down and return it; one that was written meanwhile is kept instead.

        Raises:
            StoreError: It cannot be written; the file is as before.
        """
        with self._lock:
            answers = self._answers.setdefault(request.key, {})
            if index not in answers:
                self._append(
                    {"key": request.key, "chat": request.chat_key, "index": index}
                    | answer.to_json()
                )
                answers[index] = answer
            return answers[index]

    def missing(self, request: Request) -> DataError:
        """Return the error that names a request without an answer."""
        hint = (
            "; the same messages were recorded with another n, seed, sampling or constraint"
            if request.chat_key in self._chats
            else ""
        )
        return DataError(
            f"the recording {self.path} has no answer to this request: {request.describe()}{hint}. "
            "Use the settings it was recorded with, or add to it with mode: record and a policy"
        )

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _open_to_write(self) -> int:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise StoreError(
                f"the recording {self.path} is being written by another policy or process; wait "
                "until it ends, or record into another file"
            ) from None
        return file

    def _load(self, settings: Mapping[str, Any] | None) -> dict[str, Any]:
        """Read the file, begin a new one, and return the settings it was made with."""
        *lines, torn = self._read_bytes().split(b"\n")
        if torn:
            self.num_torn = 1
            _log.warning("%s ends in a line that was cut short; it is left out", self.path)
            if self._file is not None:
                os.ftruncate(self._file, sum(len(line) + 1 for line in lines))
        if not lines:
            return self._begin(settings)
        header = self._parse(1, lines[0])
        if header.get("schema_version") != SCHEMA_VERSION or "policy" not in header:
            raise DataError(
                f"{self.path} is no recording of schema version {SCHEMA_VERSION}; its first line "
                f"is {lines[0][:_SHOWN_CHARACTERS]!r}"
            )
        found = [] if settings is None else differences(header["policy"], settings)
        if found:
            raise StoreError(
                f"the recording {self.path} was made with another policy ({'; '.join(found)}); "
                "use that policy again, or record into another file"
            )
        for number, line in enumerate(lines[1:], start=2):
            self._take(number, self._parse(number, line))
        return dict(header["policy"])

    def _begin(self, settings: Mapping[str, Any] | None) -> dict[str, Any]:
        if settings is None:
            raise DataError(f"the recording {self.path} is empty; record it with mode: record")
        self._append({"schema_version": SCHEMA_VERSION, "policy": dict(settings)})
        return dict(settings)

    def _take(self, number: int, record: Mapping[str, Any]) -> None:
        try:
            answer = Recorded.from_json(record)
            self._answers.setdefault(record["key"], {}).setdefault(int(record["index"]), answer)
            self._chats.add(record["chat"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(number, error) from error

    def _read_bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise DataError(
                f"the recording {self.path} cannot be read ({error}); record it first with "
                "mode: record and a policy"
            ) from error

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except ValueError as error:
            raise self._damaged(number, error) from error
        if not isinstance(record, dict):
            raise self._damaged(number, TypeError("not a JSON object"))
        return record

    def _append(self, record: Mapping[str, Any]) -> None:
        """Write one whole line, or nothing."""
        if self._file is None:
            raise StoreError(f"the recording {self.path} is closed; nothing can be added to it")
        data = json.dumps(record).encode() + b"\n"
        before = os.fstat(self._file).st_size
        try:
            if os.write(self._file, data) < len(data):
                raise OSError("the disk is full")
        except OSError as error:
            os.ftruncate(self._file, before)
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(
            f"the recording {self.path} cannot be written ({error}); free some space, or give a "
            "path that can be written"
        )

    def _damaged(self, number: int, error: Exception) -> DataError:
        return DataError(
            f"{self.path}, line {number} is damaged ({type(error).__name__}: {error}); restore the "
            "file, or delete the line and record its answer again"
        )

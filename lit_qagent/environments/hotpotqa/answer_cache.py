"""Answers of a web service on disk: one JSON file each, shared by any number of processes."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_qagent.core.errors import ConfigError


class AnswerCache:
    """Keeps answers for good; delete the folder to ask again.

    A file appears whole or not at all, so processes need no lock; two that ask the same at once
    write the same file. A damaged file counts as missing and is written anew.

    Args:
        folder: Made if it is missing.

    Raises:
        ConfigError: The folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot create the cache folder {folder} ({error.strerror}); name another one"
            ) from error

    def get(self, request: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the answer to a request, or None."""
        try:
            entry = json.loads(self._path(request).read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(entry, dict) or entry.get("request") != dict(request):
            return None
        answer = entry.get("answer")
        return answer if isinstance(answer, dict) else None

    def put(self, request: Mapping[str, str], answer: Mapping[str, Any]) -> None:
        """Keep the answer to a request."""
        path = self._path(request)
        path.parent.mkdir(exist_ok=True)
        number, part = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        with os.fdopen(number, "w", encoding="utf-8") as file:
            json.dump({"request": dict(request), "answer": dict(answer)}, file)
        Path(part).replace(path)

    def _path(self, request: Mapping[str, str]) -> Path:
        name = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.json"

"""Reads the records of JSON files one by one, so that a file may be larger than the memory."""

import codecs
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lit_qagent.core.errors import DataError

SOURCE = "get the files from https://github.com/princeton-nlp/WebShop (setup.sh names them)"
_BLOCK_BYTES = 1 << 20
_SPACE = " \t\r\n"
_MAX_RECORD_CHARS = 1 << 26
_MAX_TOKEN_CHARS = 32  # a number, a word or an escape that the end of a block may cut


class JsonArray:
    """The records of a file that holds one JSON array; iterate once.

    Attributes:
        sha256: Hash of the file's bytes; known when the iteration has ended.

    Args:
        path: The file.

    Raises:
        DataError: The file is missing, empty, truncated, or not an array of objects.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sha256 = ""
        self._text = ""
        self._at = 0
        self._number = 0

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        self._blocks = _read_blocks(self.path)
        digest = self._digest = hashlib.sha256()
        texts = self._decode(self._blocks, digest)
        if self._next_letter(texts) != "[":
            kind = "is empty" if not self._text.strip() else "does not hold a JSON array"
            raise DataError(f"WebShop file {self.path} {kind}; {SOURCE}")
        self._at += 1
        first = True
        while (letter := self._next_letter(texts)) != "]":
            if not first:
                if letter != ",":
                    raise self._broken("expected , or ] after the record before it")
                self._at += 1
            yield self._read_record(texts)
            first = False
            self._number += 1
        self._at += 1
        if self._next_letter(texts, at_end=True):
            raise self._broken("text follows the end of the array")
        self.sha256 = digest.hexdigest()

    def skip_rest(self) -> None:
        """Read the rest of the file for its hash only."""
        for block in self._blocks:
            self._digest.update(block)
        self.sha256 = self._digest.hexdigest()

    def _read_record(self, texts: Iterator[str]) -> Mapping[str, Any]:
        self._next_letter(texts)
        decoder = json.JSONDecoder()
        while True:
            try:
                record, end = decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                num_left = len(self._text) - self._at
                if not self._may_go_on(error) or num_left > _MAX_RECORD_CHARS:
                    raise self._broken(error.msg) from error
                # Doubling what is read keeps even a record of megabytes linear.
                if not self._read_more(texts, num_left):
                    raise self._broken(f"the file ends within it ({error.msg})") from error
                continue
            except RecursionError as error:
                raise self._broken("it is nested too deeply") from error
            self._at = end
            if not isinstance(record, dict):
                raise self._broken(f"expected an object, got {type(record).__name__}")
            return record

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        """Say whether the record is perhaps only not read to its end."""
        near_end = len(self._text) - error.pos <= _MAX_TOKEN_CHARS
        return near_end or error.msg.startswith("Unterminated string")

    def _next_letter(self, texts: Iterator[str], *, at_end: bool = False) -> str:
        """Skip white space and return the letter there."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_more(texts, 1):
                if at_end or (not self._number and not self._text.strip()):
                    return ""
                raise self._broken("the file ends there")

    def _read_more(self, texts: Iterator[str], least: int) -> bool:
        """Append at least so many letters to what is not used yet; False at the end."""
        pieces = [self._text[self._at :]]
        self._at, num_read = 0, 0
        while num_read < max(1, least):
            piece = next(texts, None)
            if piece is None:
                break
            pieces.append(piece)
            num_read += len(piece)
        self._text = "".join(pieces)
        return num_read > 0

    def _decode(self, blocks: Iterator[bytes], digest: Any) -> Iterator[str]:  # noqa: ANN401 (hashlib has no public type)
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            for block in blocks:
                digest.update(block)
                if text := decoder.decode(block):
                    yield text
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise self._broken(f"it is not UTF-8 ({error.reason})") from error

    def _broken(self, reason: str) -> DataError:
        return DataError(
            f"WebShop file {self.path} is damaged or truncated at record {self._number}: "
            f"{reason}; {SOURCE}"
        )


def read_object(path: Path) -> tuple[Mapping[str, Any], str]:
    """Return a file's JSON object and the SHA-256 of its bytes; it is read as a whole.

    Raises:
        DataError: The file is missing, empty, truncated, or not an object.
    """
    content = b"".join(_read_blocks(path))
    if not content.strip():
        raise DataError(f"WebShop file {path} is empty; {SOURCE}")
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"WebShop file {path} is not valid JSON, perhaps truncated ({error}); {SOURCE}"
        ) from error
    if not isinstance(record, dict):
        raise DataError(
            f"WebShop file {path} holds a JSON {type(record).__name__}, expected an object "
            f"from product codes to records; {SOURCE}"
        )
    return record, hashlib.sha256(content).hexdigest()


def _read_blocks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                yield block
    except OSError as error:
        raise DataError(f"cannot read WebShop file {path}: {error.strerror}; {SOURCE}") from error

"""The tree store: a folder that survives kill -9 and knows what it was made with.

``manifest.json`` holds the settings; ``trees/<tree id>.jsonl`` one tree: a header line, one line
per iteration, an end line. Lines are only appended, so a kill loses at most the iteration in
flight; the torn line it may leave is cut, and reported, when the tree is continued. A failed tree
may be continued: iterations then follow its end line, and the last end line counts.
"""

import fcntl
import os
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_collection.iterations import Iteration, TreeEnd, TreeHeader
from data_collection.manifest import MANIFEST_FILE, claim_settings, read_settings
from data_collection.tree_file import (
    StoredTree,
    cut_torn_line,
    end_line,
    iteration_line,
    read_tree,
    write_header,
)
from lit_qagent.core.errors import StoreError
from lit_qagent.core.manifest import write_json

TREES_FOLDER = "trees"
SUMMARY_FILE = "summary.json"
LOCK_FILE = ".lock"
_MAX_OPEN_FILES = 256  # systems allow 1024 as a rule


class TreeStore:
    """Trees of one collection on disk.

    Args:
        folder: The store's folder; it is created by `open`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open_files: dict[str, int] = {}  # of the trees that grow, by tree id

    @contextmanager
    def open(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Hold the store for writing; create it, or check it against the present settings.

        Raises:
            StoreError: Another process writes here, the folder holds something else, it cannot be
                written, or the store was made with other settings.
        """
        self._refuse_foreign_folder()
        with self._locked():
            try:
                claim_settings(self.folder, settings)
                (self.folder / TREES_FOLDER).mkdir(exist_ok=True)
            except OSError as error:
                raise _not_written(self.folder, error) from error
            try:
                yield
            finally:
                for descriptor in self._open_files.values():
                    os.close(descriptor)
                self._open_files.clear()

    def settings(self) -> dict[str, Any]:
        """Return what the store was made with.

        Raises:
            StoreError: No store, or a damaged one.
        """
        return read_settings(self.folder)

    def trees(self, *, but: Collection[str] = ()) -> Iterator[StoredTree]:
        """Read all trees, finished and unfinished, in the order of their names.

        Args:
            but: Ids of trees to leave out.

        Raises:
            StoreError: No store, an empty file or another schema.
            DataError: A damaged line.
        """
        truncation_reward = self.settings()["search"]["truncation_reward"]
        for path in self.paths():
            if path.stem in but:
                continue
            yield read_tree(path, truncation_reward=truncation_reward)

    def paths(self) -> list[Path]:
        """Return the files of all trees, in the order of their names."""
        return sorted((self.folder / TREES_FOLDER).glob("*.jsonl"))

    def read(self, tree_id: str) -> StoredTree | None:
        """Read one tree; None if it was never started."""
        path = self._path(tree_id)
        if not path.exists():
            return None
        return read_tree(path, truncation_reward=self.settings()["search"]["truncation_reward"])

    def start(self, header: TreeHeader) -> None:
        """Write the header of a new tree.

        Raises:
            StoreError: The disk is full, or the file cannot be written.
        """
        path = self._path(header.tree_id)
        try:
            write_header(path, header)
        except OSError as error:
            raise _not_written(path, error) from error

    def resume(self, header: TreeHeader) -> StoredTree | None:
        """Return what is stored of a tree, ready to be continued; None if it was never started.

        A torn last line is cut from the file.

        Raises:
            StoreError: The world now shows this task in another way.
        """
        stored = self.read(header.tree_id)
        if stored is None:
            return None
        if stored.header != header:
            raise StoreError(
                f"{self._path(header.tree_id)} starts from another chat than the world now shows "
                f"for task {header.task_id!r}: the world's texts have changed without a new "
                "version; collect into another --store"
            )
        if stored.is_torn:
            cut_torn_line(self._path(header.tree_id))
        return stored

    def append_iteration(self, tree_id: str, iteration: Iteration) -> None:
        """Write one iteration down."""
        self._append(tree_id, iteration_line(iteration))

    def append_end(self, tree_id: str, end: TreeEnd) -> None:
        """Close a tree."""
        self._append(tree_id, end_line(end))
        self.let_go(tree_id)

    def write_summary(self, numbers: Mapping[str, Any]) -> None:
        """Write down what the store holds.

        Raises:
            StoreError: The disk is full, or the file cannot be written.
        """
        path = self.folder / SUMMARY_FILE
        try:
            write_json(path, numbers)
        except OSError as error:
            raise _not_written(path, error) from error

    def let_go(self, tree_id: str) -> None:
        """Close the file of a tree that does not grow for now."""
        descriptor = self._open_files.pop(tree_id, None)
        if descriptor is not None:
            os.close(descriptor)

    def _append(self, tree_id: str, line: str) -> None:
        """Write one line with one call, so that a kill leaves it whole or torn at the very end.

        Raises:
            StoreError: The disk is full, or the file cannot be written.
        """
        data = line.encode()
        try:
            descriptor = self._open_files.get(tree_id)
            if descriptor is None:
                while len(self._open_files) >= _MAX_OPEN_FILES:
                    self.let_go(next(iter(self._open_files)))
                descriptor = os.open(self._path(tree_id), os.O_WRONLY | os.O_APPEND)
                self._open_files[tree_id] = descriptor
            num_written = os.write(descriptor, data)
            if num_written < len(data):
                # The rest of a line that did not fit; it raises what was wrong.
                os.write(descriptor, data[num_written:])
        except OSError as error:
            raise _not_written(self._path(tree_id), error) from error

    def _path(self, tree_id: str) -> Path:
        return self.folder / TREES_FOLDER / f"{tree_id}.jsonl"

    def _refuse_foreign_folder(self) -> None:
        if self.folder.is_dir() and not (self.folder / MANIFEST_FILE).exists():
            # Names with a dot in front are the lock and what a kill may leave of a first write.
            foreign = sorted(
                path.name for path in self.folder.iterdir() if not path.name.startswith(".")
            )
            if foreign:
                raise StoreError(
                    f"{self.folder} holds other files ({', '.join(foreign[:5])}) and no "
                    f"{MANIFEST_FILE}; give --store an empty or new folder"
                )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock file; the system lets go of it when the process ends, however it ends."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / LOCK_FILE).open("a+", encoding="utf-8")
        except OSError as error:
            raise StoreError(
                f"{self.folder} cannot be written ({error.strerror}); give a --store that can"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise StoreError(
                    f"the tree store {self.folder} is being written by {lock.read().strip()}; "
                    "wait until it ends, stop it, or give another --store"
                ) from None
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            lock.flush()
            yield


def _not_written(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path} cannot be written ({error.strerror}); everything finished so far is kept. Make "
        "room or make it writable, and run the same command again to go on"
    )

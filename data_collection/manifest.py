"""The manifest of a tree store: the settings its trees were made with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_qagent.core import manifest
from lit_qagent.core.errors import StoreError

STORE_SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
_SUBJECT = "Tree store"
_VERSION_KEY = "schema_version"


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the settings of a store.

    Raises:
        StoreError: The manifest is missing, damaged or of another schema.
    """
    settings = manifest.read(folder / MANIFEST_FILE, _SUBJECT)
    version = settings.pop(_VERSION_KEY, None)
    if version != STORE_SCHEMA_VERSION:
        raise StoreError(
            f"{_SUBJECT} {str(folder)!r} has schema version {version}, this program reads "
            f"{STORE_SCHEMA_VERSION}; collect again into another folder, or use the version "
            "that wrote it"
        )
    return settings


def claim_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a new store, or compare an old one's with them.

    Raises:
        StoreError: They differ; the message names every differing key with both values.
    """
    path = folder / MANIFEST_FILE
    if path.exists():
        read_settings(folder)
    manifest.claim(path, {_VERSION_KEY: STORE_SCHEMA_VERSION, **settings}, _SUBJECT)

"""The manifest of a folder: the settings it was made with, so that no other run mixes into it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_qagent.core.errors import StoreError

_ABSENT = "(absent)"
_LONGEST_VALUE = 120


def write_json(path: Path, value: object) -> None:
    """Write JSON so that a reader sees the old file or the whole new one, never a part."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def read(path: Path, subject: str) -> dict[str, Any]:
    """Return the settings in a manifest.

    Args:
        path: The manifest.
        subject: What the folder is called in messages, such as ``Tree store``.

    Raises:
        StoreError: The manifest is missing or holds no JSON object.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(
            f"{subject} {str(path.parent)!r} has no {path.name}; name a folder that a run has made"
        ) from None
    except ValueError as error:
        raise StoreError(
            f"{subject} {str(path.parent)!r}: {path.name} is not JSON ({error}); "
            "restore it or use another folder"
        ) from error
    if not isinstance(settings, dict):
        raise StoreError(
            f"{subject} {str(path.parent)!r}: {path.name} must hold an object, "
            f"got {type(settings).__name__}; restore it or use another folder"
        )
    return settings


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Name every setting that differs, with both values, by its dotted key.

    Examples:
        >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 5}, "c": 2})
        ['a.b: 1 there, 5 now']
    """
    before, after = _flatten(_as_json(old)), _flatten(_as_json(new))
    keys = [*before, *(key for key in after if key not in before)]
    return [
        f"{key}: {_shown(before, key)} there, {_shown(after, key)} now"
        for key in keys
        if before.get(key, _ABSENT) != after.get(key, _ABSENT)
    ]


def claim(path: Path, settings: Mapping[str, Any], subject: str) -> None:
    """Write the manifest of a new folder, or check that an old folder was made with these settings.

    Args:
        path: The manifest; its folder is made if needed.
        settings: JSON values only.
        subject: What the folder is called in messages, such as ``Tree store``.

    Raises:
        StoreError: The folder was made with other settings; nothing is changed.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
        return
    found = differences(read(path, subject), settings)
    if found:
        lines = "".join(f"\n  {line}" for line in found)
        raise StoreError(
            f"{subject} {str(path.parent)!r} was made with other settings:{lines}\n"
            "use these settings again or give another folder"
        )


def _as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings as they read back, so that a tuple equals the list it became."""
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _flatten(value: object, key: str = "") -> dict[str, Any]:
    """Return dotted key -> leaf; lists are leaves, and so are empty objects."""
    if not isinstance(value, dict) or not value:
        return {key: value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= _flatten(inner, f"{key}.{name}" if key else name)
    return flat


def _shown(flat: Mapping[str, Any], key: str) -> str:
    if key not in flat:
        return _ABSENT
    text = json.dumps(flat[key], ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."

"""One HTML file of data, style and script; nothing in the data can become markup or script."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_qagent.core.errors import StoreError

GENERATOR = "lit_qagent data_collection view"
_FOLDER = Path(__file__).parent
_SCRIPTS = ("base.js", "tasks.js", "tree.js", "step.js", "main.js")
# What could end the element that holds the data, and half letters that no file can hold.
_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")
_HEAD_CHARACTERS = 2000


def data_text(data: Mapping[str, Any]) -> str:
    r"""Return JSON that can stand in a script element, whatever the texts in it hold.

    Examples:
        >>> data_text({"a": "</script>"})
        '{"a":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _UNSAFE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def make_page(data: Mapping[str, Any], title: str) -> str:
    """Return the page; its policy allows its own script and style, and no network."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    script = _script()
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    templates = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined
    )
    return templates.get_template("page.html.j2").render(
        title=title,
        policy=policy,
        generator=GENERATOR,
        style=style,
        script=script,
        data=data_text(data),
    )


def write_page(path: Path, page: str) -> int:
    """Write the page whole or not at all; an older page of the same kind is replaced.

    Returns:
        Its size in bytes.

    Raises:
        StoreError: The file is something else, or cannot be written.
    """
    try:
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as file:
                if GENERATOR not in file.read(_HEAD_CHARACTERS):
                    raise StoreError(
                        f"{path} is there and is no page of this command; give another --output"
                    )
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        num_bytes = partial.write_bytes(page.encode())
        partial.replace(path)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written ({error.strerror}); give an --output that can"
        ) from error
    return num_bytes


def _script() -> str:
    parts = [(_FOLDER / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"

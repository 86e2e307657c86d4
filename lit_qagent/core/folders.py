"""Where things that are made once are kept."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``LIT_QAGENT_CACHE``, or ``~/.cache/lit_qagent``."""
    chosen = os.environ.get("LIT_QAGENT_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "lit_qagent"

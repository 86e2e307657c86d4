"""Where tests find real data that the project does not contain."""

import os
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]


def data_file(name: str) -> Path:
    """Return a file of the data folder, or skip the test with the reason.

    The folder is ``$QAGENT_DATA``, else ``../shared/data`` beside the repository.
    """
    folder = Path(os.environ.get("QAGENT_DATA", _ROOT.parent / "shared" / "data"))
    path = folder / name
    if not path.exists():
        pytest.skip(f"no data: {path} does not exist; set QAGENT_DATA to the folder that has it")
    return path

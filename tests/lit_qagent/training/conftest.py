"""Training in tests keeps its reference log-probabilities in a folder of each test's own."""

from pathlib import Path

import pytest

from lit_qagent.training import reference


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(reference, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "reference"

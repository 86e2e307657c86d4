"""What most tests of training start from: a tiny model, a few pairs, a cache of each test's own."""

from pathlib import Path

import pytest

from lit_qagent.training import reference
from tests.pair_folder import make_pairs, write_pairs
from tests.tiny_model import save_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-model")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), make_pairs(11))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(reference, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "reference"

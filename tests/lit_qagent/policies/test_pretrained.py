from pathlib import Path

import pytest

from lit_qagent.core.errors import ModelError
from lit_qagent.policies import pretrained
from lit_qagent.policies.pretrained import resolve_model


def test_both_names_of_the_small_model_give_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "small_model_folder", lambda: tmp_path)
    assert resolve_model("SmolLM2-135M-Instruct") == str(tmp_path)
    assert resolve_model("HuggingFaceTB/SmolLM2-135M-Instruct") == str(tmp_path)


def test_a_model_folder_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json; give the folder that"):
        resolve_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="has no weights"):
        resolve_model(str(tmp_path))
    (tmp_path / "model.safetensors").touch()
    assert resolve_model(str(tmp_path)) == str(tmp_path)


@pytest.mark.parametrize("name", ["/no/such/folder", "./model", "~/model-that-is-not", "a/b/c"])
def test_a_folder_that_is_not_there_is_never_looked_up_on_the_hub(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "_check_hub", lambda name: pytest.fail("asked the hub"))
    with pytest.raises(ModelError, match=r"does not exist; give a folder with config\.json"):
        resolve_model(name)


def test_an_unreachable_hub_is_said_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pretrained, "hub_answers", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="the model hub cannot be reached"):
        resolve_model("example/some-model")


def test_a_malformed_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "hub_answers", lambda: False)
    with pytest.raises(ModelError, match="neither a folder nor a model on the hub"):
        resolve_model("some model")

"""The shareable checkpoint reads back bit for bit, and says what is wrong with it if it cannot."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from lit_qagent.core.errors import CheckpointError
from lit_qagent.data.batch import collate_sequences
from lit_qagent.data.rendering import TokenSequence
from lit_qagent.models.base_model import decode
from lit_qagent.models.export import (
    CARD_FILE,
    describe,
    load_q_model,
    read_checkpoint,
    save_checkpoint,
)
from lit_qagent.models.fingerprint import BASE_KEY, fingerprint
from lit_qagent.models.q_heads import ImplicitQHead
from lit_qagent.models.q_model import QModel
from lit_qagent.models.specs import BackboneSpec
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import tiny_q_model, tiny_spec

BATCH = collate_sequences([[TokenSequence([40, 41, 42], [50, 2]), TokenSequence([40], [60, 61])]])
LINEAGE = {"pairs_hash": "abc", "environment": {"name": "boxes"}, "task_ids": ["t1", "t2"]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-model")


def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no folder '.*gone'; train it with .*fit"):
        read_checkpoint(tmp_path / "gone")


@pytest.fixture
def q_model(model: Path) -> QModel:
    return tiny_q_model(tiny_spec(model), head=ImplicitQHead(beta=0.3, reduction="mean"))


@pytest.fixture
def folder(tmp_path: Path, q_model: QModel) -> Path:
    save(tmp_path / "checkpoint", q_model)
    return tmp_path / "checkpoint"


def save(folder: Path, q_model: QModel) -> None:
    metrics = {"val/accuracy": 0.75}
    save_checkpoint(
        folder, q_model, describe(q_model, max_length=512, lineage=LINEAGE, metrics=metrics)
    )


def change_card(folder: Path, **changes: object) -> None:
    path = folder / CARD_FILE
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**values, **changes}), encoding="utf-8")


def test_a_model_reads_back_bit_for_bit(folder: Path, q_model: QModel, model: Path) -> None:
    loaded = load_q_model(folder, tiny_spec(model))

    assert loaded.head.settings() == {"beta": 0.3, "reduction": "mean"}
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    with torch.no_grad():
        assert torch.equal(loaded(BATCH), q_model(BATCH))


def test_a_model_to_train_on_reads_back_trainable(folder: Path, model: Path) -> None:
    loaded = load_q_model(folder, tiny_spec(model), trainable=True)

    trainable = [name for name, p in loaded.named_parameters() if p.requires_grad]
    assert len(trainable) == 28
    assert all("lora_" in name for name in trainable)


def test_the_adapter_loads_with_peft_alone(folder: Path, q_model: QModel, model: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model)
    adapted = PeftModel.from_pretrained(base, folder / "adapter")

    with torch.no_grad():
        ids = torch.tensor([[40, 41, 42]])
        expected = decode(q_model.backbone.language_model, input_ids=ids)
        assert torch.equal(decode(adapted.get_base_model(), input_ids=ids), expected)


def test_the_card_says_what_scoring_needs_and_where_it_comes_from(folder: Path) -> None:
    card = read_checkpoint(folder)

    assert (card.head, card.head_settings) == ("implicit", {"beta": 0.3, "reduction": "mean"})
    assert card.max_length == 512
    assert card.lineage == LINEAGE
    assert card.metrics == {"val/accuracy": 0.75}
    assert card.backbone == BackboneSpec(name="tiny-model", dtype="float32")


def test_no_file_is_a_pickle_or_names_a_folder_of_this_machine(folder: Path, model: Path) -> None:
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())

    assert files == [
        "README.md",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "q_model.yaml",
    ]
    for file in files:
        assert str(model.parent).encode() not in (folder / file).read_bytes()


def test_the_model_card_shows_metrics_and_lineage(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")

    assert "| val/accuracy | 0.7500 |" in text
    assert "pairs_hash: abc" in text
    assert "Trained on 2 tasks" in text
    assert yaml.safe_load(text.split("---")[1])["base_model"] == "tiny-model"


def test_an_older_checkpoint_is_replaced_whole(folder: Path, q_model: QModel) -> None:
    (folder / "left-over.txt").write_text("x", encoding="utf-8")

    save(folder, q_model)

    assert not (folder / "left-over.txt").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path, q_model: QModel) -> None:
    (tmp_path / "thesis.txt").write_text("x", encoding="utf-8")

    with pytest.raises(CheckpointError, match=r"is not a checkpoint .* nothing was overwritten"):
        save(tmp_path, q_model)

    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "x"


def test_a_failed_export_leaves_the_old_checkpoint(
    folder: Path, q_model: QModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(q_model.backbone, "save_adapter", fail)
    with pytest.raises(OSError, match="disk full"):
        save(folder, q_model)

    assert read_checkpoint(folder).max_length == 512
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("name", ["_head.linear.weight", "head.linear.weight"])
def test_trained_weights_that_belong_nowhere_are_refused(
    tmp_path: Path, q_model: QModel, name: str
) -> None:
    card = describe(q_model, max_length=512, lineage=LINEAGE, metrics={})
    weights = {**dict(q_model.named_parameters()), name: torch.zeros(1)}

    with pytest.raises(CheckpointError, match=rf"1 of \d+ .* such as '{name}'; nothing was writt"):
        save_checkpoint(tmp_path / "out", q_model, card, weights)

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "file", ["q_model.yaml", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"]
)
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()

    with pytest.raises(CheckpointError, match=rf"has no {file}; give the folder that training"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint_version": 2}, r"checkpoint_version 2, this program .* reads 1; use version"),
        ({"rendering_version": "0"}, r"rendering_version '0', this program .* reads '1'"),
        ({"surprise": 1}, "other fields than expected: surprise"),
        ({"backbone": {"nam": "x"}}, "describes no base model"),
        ({"head": "oracle"}, "kind 'oracle', this program knows both, implicit, scalar"),
    ],
)
def test_a_card_of_another_program_is_refused(
    folder: Path, model: Path, changes: dict[str, object], message: str
) -> None:
    change_card(folder, **changes)

    with pytest.raises(CheckpointError, match=message):
        load_q_model(folder, tiny_spec(model))


def test_a_card_that_is_not_yaml_is_refused(folder: Path) -> None:
    (folder / CARD_FILE).write_text("{", encoding="utf-8")

    with pytest.raises(CheckpointError, match="is not YAML"):
        read_checkpoint(folder)


def test_another_base_model_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    other = tiny_spec(save_tiny_model(tmp_path / "other-model"))

    with pytest.raises(CheckpointError, match=r"was trained on 'tiny-model', the .*other-model"):
        load_q_model(folder, other)


def test_another_architecture_under_the_same_name_is_refused(folder: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    other = save_tiny_model(tmp_path / "tiny-model")
    config = LlamaConfig.from_pretrained(other)
    config.hidden_size = 16
    LlamaForCausalLM(config).save_pretrained(other)  # type: ignore[no-untyped-call]

    with pytest.raises(
        CheckpointError, match=r"cannot be put on .*size mismatch.* give the base model"
    ):
        load_q_model(folder, tiny_spec(other))


def test_other_weights_under_the_same_name_are_refused(
    folder: Path, model: Path, q_model: QModel, tmp_path: Path
) -> None:
    other = tiny_spec(save_tiny_model(tmp_path / "tiny-model", seed=1))
    change_card(folder, lineage={**LINEAGE, BASE_KEY: fingerprint(q_model.backbone)})

    for dtype in ("float32", "bfloat16"):
        load_q_model(folder, tiny_spec(model, dtype=dtype))
    with pytest.raises(CheckpointError, match=r"tiny-model' has other weights .* give that model"):
        load_q_model(folder, other)


def test_an_adapter_without_all_of_its_tensors_is_refused(folder: Path, model: Path) -> None:
    path = folder / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors.pop(next(name for name in tensors if "lora_B" in name))
    save_file(tensors, path)

    with pytest.raises(CheckpointError, match="1 tensors are missing or too many, such as 'base"):
        load_q_model(folder, tiny_spec(model))


def test_a_damaged_adapter_is_refused(folder: Path, model: Path) -> None:
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"no tensors")

    with pytest.raises(CheckpointError, match="cannot be put on"):
        load_q_model(folder, tiny_spec(model))

"""What training of all weights leaves: a whole model that reads back on its own base only."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from transformers import AutoModelForCausalLM

from lit_qagent.core.errors import CheckpointError, ConfigError
from lit_qagent.data.batch import collate_pairs
from lit_qagent.data.rendered import render_pair
from lit_qagent.models.export import describe, load_q_model, read_checkpoint, save_checkpoint
from lit_qagent.models.fingerprint import BASE_KEY, hash_of_base
from lit_qagent.models.q_heads import ImplicitQHead, QHead, ScalarQHead
from lit_qagent.training.callbacks import ExportCheckpoint
from lit_qagent.training.module import StepDPO
from tests.lit_qagent.training.parts import fit, make_full_module, weights_of
from tests.pair_folder import make_pair
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import tiny_spec


def exported(
    model: Path,
    pairs: Path,
    folder: Path,
    head: QHead | None = None,
    *callbacks: pl.Callback,
) -> tuple[StepDPO, Path]:
    module = make_full_module(model, q_head=head or ImplicitQHead(beta=0.2), max_length=900)
    fit(module, pairs, ExportCheckpoint(folder / "out"), *callbacks)
    return module, folder / "out"


def whole_checkpoint(
    model: Path, folder: Path, head: QHead | None = None, lineage: dict[str, Any] | None = None
) -> Path:
    module = make_full_module(model, q_head=head or ImplicitQHead())
    module.configure_model()
    assert module.q_model is not None
    card = describe(module.q_model, max_length=900, lineage=lineage or {}, metrics={})
    save_checkpoint(folder / "out", module.q_model, card)
    return folder / "out"


@pytest.mark.parametrize("head", [ImplicitQHead(beta=0.2), ScalarQHead()], ids=["implicit", "head"])
def test_an_exported_model_reads_back_whole(
    model: Path, pairs: Path, tmp_path: Path, head: QHead
) -> None:
    module, folder = exported(model, pairs, tmp_path, head)
    copy = make_full_module(
        model, reference="copy", q_head=head
    )  # the same, with its reference held
    copy.configure_model()
    copy.load_state_dict(weights_of(module))
    [pair] = [t for t in [render_pair(make_pair(5, 1), module.renderer)] if t is not None]
    batch = collate_pairs([pair], "batch").tokens

    loaded = load_q_model(folder, tiny_spec(model))

    assert (loaded.backbone.original is None) == (head.kind == "scalar")
    with torch.no_grad():
        assert torch.equal(loaded(batch), copy(batch))
        assert loaded(batch).abs().min() > 0
    assert not any(p.requires_grad for n, p in loaded.named_parameters() if "head" not in n)
    alone = AutoModelForCausalLM.from_pretrained(folder / "model")
    trained = module.get_parameter("q_model.backbone.model.lm_head.weight")
    assert torch.equal(alone.lm_head.weight, trained)


def test_an_exported_model_has_the_same_card_and_no_pickle(
    model: Path, pairs: Path, tmp_path: Path
) -> None:
    module, folder = exported(model, pairs, tmp_path)
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())

    assert files == [
        "README.md",
        "model/config.json",
        "model/generation_config.json",
        "model/model.safetensors",
        "q_model.yaml",
    ]
    assert not any(str(model.parent).encode() in (folder / file).read_bytes() for file in files)
    card = read_checkpoint(folder)
    assert card.lineage == module.lineage
    assert (card.backbone.name, card.max_length) == ("tiny-model", 900)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert 'AutoModelForCausalLM.from_pretrained("<this folder>/model")' in text
    assert yaml.safe_load(text.split("---")[1])["library_name"] == "transformers"


def test_training_goes_on_from_an_exported_model(model: Path, pairs: Path, tmp_path: Path) -> None:
    first, folder = exported(model, pairs, tmp_path)
    module = make_full_module(model, checkpoint=folder)
    module.configure_model()
    before = {name: weight.clone() for name, weight in weights_of(module).items()}

    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(first).items())
    fit(module, pairs)

    assert any(not torch.equal(weight, before[name]) for name, weight in weights_of(module).items())
    # Its reference is the base model and not the model it started from.
    again = make_full_module(model, checkpoint=folder, reference="copy")
    again.configure_model()
    assert again.q_model is not None
    assert again.q_model.backbone.original is not None
    base = AutoModelForCausalLM.from_pretrained(model)
    assert torch.equal(again.q_model.backbone.original.lm_head.weight, base.lm_head.weight)
    with pytest.raises(ConfigError, match="set it to cached"):
        make_full_module(model, checkpoint=folder, reference="live")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model/model.safetensors", b"no tensors", "cannot be put on"),
        ("model/model.safetensors", None, r"lack 21 of .*, such as 'model.embed_tokens.weight'"),
        ("model/config.json", None, r"has no model/config.json"),
    ],
)
def test_damaged_weights_are_refused(
    model: Path, tmp_path: Path, file: str, content: bytes | None, message: str
) -> None:
    folder = whole_checkpoint(model, tmp_path)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)

    with pytest.raises(CheckpointError, match=message):
        load_q_model(folder, tiny_spec(model))


def test_another_base_model_is_refused(model: Path, tmp_path: Path) -> None:
    folder = whole_checkpoint(model, tmp_path)
    renamed = save_tiny_model(tmp_path / "other-model")
    same_name = save_tiny_model(tmp_path / "other" / "tiny-model", num_hidden_layers=1)

    with pytest.raises(CheckpointError, match=r"was trained on 'tiny-model', the .*other-model"):
        load_q_model(folder, tiny_spec(renamed))
    with pytest.raises(CheckpointError, match=r"cannot be put on .*it has no .*layers.1"):
        load_q_model(folder, tiny_spec(same_name))


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_other_weights_under_the_same_name_are_refused(
    model: Path, pairs: Path, tmp_path: Path
) -> None:
    other = save_tiny_model(tmp_path / "other" / "tiny-model", seed=1)
    kept = ModelCheckpoint(tmp_path, "last", enable_version_counter=False)
    module, folder = exported(model, pairs, tmp_path, None, kept)

    assert module.lineage[BASE_KEY] == hash_of_base(AutoModelForCausalLM.from_pretrained(model))
    for dtype in ("float32", "bfloat16"):
        load_q_model(folder, tiny_spec(model, dtype=dtype))
    message = r"tiny-model' has other weights .* give that model"
    for with_original in (True, False):
        with pytest.raises(CheckpointError, match=message):
            load_q_model(folder, tiny_spec(other), with_original=with_original)
    with pytest.raises(CheckpointError, match=message):
        fit(make_full_module(other), pairs, ckpt_path=tmp_path / "last.ckpt", weights_only=True)


@pytest.mark.parametrize(
    ("head", "lineage"),
    [(ImplicitQHead(), {}), (ScalarQHead(), {BASE_KEY: "of another model"})],
    ids=["older checkpoint", "no reference"],
)
def test_where_nothing_is_compared_any_base_is_taken(
    model: Path, tmp_path: Path, head: QHead, lineage: dict[str, Any]
) -> None:
    folder = whole_checkpoint(model, tmp_path, head, lineage)
    other = save_tiny_model(tmp_path / "other" / "tiny-model", seed=1)

    loaded = load_q_model(folder, tiny_spec(other))

    trained = AutoModelForCausalLM.from_pretrained(model).lm_head.weight
    assert torch.equal(loaded.backbone.output_layer.weight, trained)  # type: ignore[arg-type]

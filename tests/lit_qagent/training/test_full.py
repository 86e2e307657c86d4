"""Training all weights: exact, with a cached or a copied reference, resumed, and exported whole."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM

from lit_qagent.__main__ import main
from lit_qagent.core.errors import CheckpointError, ConfigError
from lit_qagent.data.batch import Sharing, collate_pairs
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.data.rendered import render_pair
from lit_qagent.models.backbone import build_backbone
from lit_qagent.models.export import describe, load_q_model, read_checkpoint, save_checkpoint
from lit_qagent.models.fingerprint import BASE_KEY, hash_of_base
from lit_qagent.models.q_heads import BothQHeads, ImplicitQHead, QHead, ScalarQHead
from lit_qagent.models.specs import LoraSpec
from lit_qagent.training.callbacks import ExportCheckpoint
from lit_qagent.training.module import StepDPO
from tests.pair_folder import make_episodes, make_pair
from tests.reference import reference_action_log_prob
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import tiny_spec


def adamw(parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3)


def make_module(model: Path, **changes: Any) -> StepDPO:  # noqa: ANN401
    pl.seed_everything(7, verbose=False)
    return StepDPO(tiny_spec(model), **{"lora": None, "optimizer": adamw, **changes})


def fit(module: StepDPO, pairs: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:  # noqa: ANN401
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        callbacks=list(callbacks),
    )
    trainer.fit(module, PreferenceDataModule(pairs, batch_size=4), **options)
    return trainer


def weights_of(module: StepDPO) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}


def shake(module: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.add_(noise * 0.02)


@pytest.mark.parametrize("sharing", ["batch", "pair", "none"])
@pytest.mark.parametrize("tied", [False, True])
def test_loss_and_gradients_equal_two_models_pair_by_pair(
    sharing: Sharing, tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_model(tmp_path, initializer_range=0.1, tie_word_embeddings=tied)
    module = make_module(folder, reference="copy")
    module.configure_model()
    assert module.q_model is not None
    policy, base = module.q_model.backbone.model, AutoModelForCausalLM.from_pretrained(folder)
    shake(policy)
    drafts = [make_pair(0, 0), make_pair(0, 1), make_pair(1, 2), make_episodes(0)]
    rendered = [t for pair in drafts if (t := render_pair(pair, module.renderer)) is not None]
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)

    losses = []
    for pair in rendered:
        with torch.no_grad():
            before = [reference_action_log_prob(base, *s) for s in (pair.chosen, pair.rejected)]
        after = [reference_action_log_prob(policy, *s) for s in (pair.chosen, pair.rejected)]
        better, worse = (0.1 * (now - then) for now, then in zip(after, before, strict=True))
        losses.append(-logsigmoid(better - worse))
    naive = torch.stack(losses).mean()
    torch.autograd.backward(naive)
    expected = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    loss = module.training_step(collate_pairs(rendered, sharing), 0)
    torch.autograd.backward(loss)

    assert len(expected) == len(weights_of(module)) >= 19
    assert loss.item() == pytest.approx(naive.item(), abs=1e-5)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            scale = max(1.0, float(expected[name].abs().max()))
            assert parameter.grad is not None
            torch.testing.assert_close(
                parameter.grad / scale, expected[name] / scale, atol=1e-5, rtol=1e-4
            )


def test_cached_and_copied_references_train_the_same(model: Path, pairs: Path, cache: Path) -> None:
    cached, copied = make_module(model), make_module(model, reference="copy")
    fit(cached, pairs)
    assert len(list(cache.iterdir())) == 2
    fit(copied, pairs)

    assert cached.q_model is not None
    assert cached.q_model.backbone.original is None  # one copy while it trains
    expected = weights_of(copied)
    base = AutoModelForCausalLM.from_pretrained(model)
    assert len(expected) == len(list(base.parameters())) == 21  # every weight is trained
    for name, weight in weights_of(cached).items():
        torch.testing.assert_close(weight, expected[name], atol=1e-5, rtol=1e-3)
    moved = (expected["q_model.backbone.model.lm_head.weight"] - base.lm_head.weight).abs().max()
    assert moved > 1e-3


@pytest.mark.parametrize(
    ("head", "tied", "is_trained"),
    [
        (ImplicitQHead(), False, True),
        (BothQHeads(), False, True),
        (ScalarQHead(), False, False),
        (ScalarQHead(), True, True),  # the embeddings are the same weights
    ],
    ids=["implicit", "both", "scalar", "scalar tied"],
)
def test_every_trained_weight_has_a_part_in_the_loss(
    tmp_path: Path, head: QHead, tied: bool, is_trained: bool
) -> None:
    folder = save_tiny_model(tmp_path / "tiny-model", tie_word_embeddings=tied)
    module = make_module(folder, q_head=head, reference="copy")
    module.configure_model()
    assert module.q_model is not None
    [pair] = [t for t in [render_pair(make_pair(5, 0), module.renderer)] if t is not None]

    evidence = module.q_model.evidence(collate_pairs([pair], "batch").tokens)
    q = module.q_model.head.trained(evidence)
    torch.autograd.backward(torch.stack([part.sum() for part in q.values()]).sum())

    layer = module.q_model.backbone.output_layer
    assert all(p.requires_grad == is_trained for p in layer.parameters())
    assert not [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("reference", ["cached", "copy"])
def test_a_resumed_run_equals_one_that_was_never_interrupted(
    model: Path, pairs: Path, tmp_path: Path, cache: Path, reference: str
) -> None:
    uninterrupted, resumed = (make_module(model, reference=reference) for _ in range(2))
    first, second = (
        ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1) for _ in range(2)
    )
    fit(uninterrupted, pairs, first)
    for file in cache.glob("*"):
        file.unlink()  # the reference is that of the base model all the same

    fit(resumed, pairs, second, ckpt_path=tmp_path / "step=3.ckpt", weights_only=True)

    expected = weights_of(uninterrupted)
    for name, weight in weights_of(resumed).items():
        assert torch.equal(weight, expected[name])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reference": "live"}, r"there is none; set it to cached .* or to copy"),
        (
            {"lora": LoraSpec(), "reference": "copy"},
            r"copy is for model.lora null: .* set it to live",
        ),
    ],
)
def test_a_reference_that_the_model_does_not_have_is_refused(
    model: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_module(model, **settings)


def test_a_quantised_model_is_not_trained_whole(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"quantization 'nf4' does not allow; set it to none, or"):
        build_backbone(tiny_spec(model, quantization="nf4"), None)


def test_pairs_that_are_not_cached_need_a_copy(model: Path, pairs: Path) -> None:
    module = make_module(model)
    fit(module, pairs)

    [pair] = [t for t in [render_pair(make_pair(5, 0), module.renderer)] if t is not None]
    with pytest.raises(ConfigError, match=r"no copy of those before training is held; set model"):
        module(collate_pairs([pair], "batch").tokens)


def test_rounding_small_steps_away_is_said(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = StepDPO(tiny_spec(model, dtype="bfloat16"), None)

    module.configure_model()

    assert "bfloat16, which rounds small steps away; set model.backbone.dtype" in caplog.text


def exported(
    model: Path,
    pairs: Path,
    folder: Path,
    head: QHead | None = None,
    *callbacks: pl.Callback,
) -> tuple[StepDPO, Path]:
    module = make_module(model, q_head=head or ImplicitQHead(beta=0.2), max_length=900)
    fit(module, pairs, ExportCheckpoint(folder / "out"), *callbacks)
    return module, folder / "out"


@pytest.mark.parametrize("head", [ImplicitQHead(beta=0.2), ScalarQHead()], ids=["implicit", "head"])
def test_an_exported_model_reads_back_whole(
    model: Path, pairs: Path, tmp_path: Path, head: QHead
) -> None:
    module, folder = exported(model, pairs, tmp_path, head)
    copy = make_module(model, reference="copy", q_head=head)  # the same, with its reference held
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
    module = make_module(model, checkpoint=folder)
    module.configure_model()
    before = {name: weight.clone() for name, weight in weights_of(module).items()}

    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(first).items())
    fit(module, pairs)

    assert any(not torch.equal(weight, before[name]) for name, weight in weights_of(module).items())
    # Its reference is the base model and not the model it started from.
    again = make_module(model, checkpoint=folder, reference="copy")
    again.configure_model()
    assert again.q_model is not None
    assert again.q_model.backbone.original is not None
    base = AutoModelForCausalLM.from_pretrained(model)
    assert torch.equal(again.q_model.backbone.original.lm_head.weight, base.lm_head.weight)
    with pytest.raises(ConfigError, match="set it to cached"):
        make_module(model, checkpoint=folder, reference="live")


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
        fit(make_module(other), pairs, ckpt_path=tmp_path / "last.ckpt", weights_only=True)


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


def whole_checkpoint(
    model: Path, folder: Path, head: QHead | None = None, lineage: dict[str, Any] | None = None
) -> Path:
    module = make_module(model, q_head=head or ImplicitQHead())
    module.configure_model()
    assert module.q_model is not None
    card = describe(module.q_model, max_length=900, lineage=lineage or {}, metrics={})
    save_checkpoint(folder / "out", module.q_model, card)
    return folder / "out"


@pytest.mark.integration
@pytest.mark.filterwarnings("default")  # mlflow's are none of ours
def test_a_config_with_lora_null_fits_and_tests(model: Path, pairs: Path, tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 2,
            "logger": False,
            "enable_progress_bar": False,
            "enable_checkpointing": False,
            "callbacks": [
                {
                    "class_path": "lit_qagent.training.callbacks.ExportCheckpoint",
                    "init_args": {"folder": str(tmp_path / "out")},
                }
            ],
        },
        "model": {
            "backbone": {"name": str(model), "dtype": "float32"},
            "lora": None,
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}},
        },
        "data": {
            "class_path": "lit_qagent.data.datamodule.PreferenceDataModule",
            "init_args": {"pairs": str(pairs)},
        },
    }
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    metrics = "lit_qagent.training.callbacks.WriteMetrics"
    config["trainer"]["callbacks"] = [
        {"class_path": metrics, "init_args": {"path": str(tmp_path / "metrics.json")}}
    ]
    config["trainer"].pop("max_epochs")
    config["model"] = {
        "backbone": {"name": str(model), "dtype": "float32"},
        "checkpoint": str(tmp_path / "out"),
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    assert main(["fit", "--config", str(tmp_path / "fit.yaml")]) == 0
    assert main(["test", "--config", str(tmp_path / "test.yaml")]) == 0

    found = yaml.safe_load((tmp_path / "metrics.json").read_text())
    assert found["test/loss"] != pytest.approx(0.6931, abs=1e-3)  # it is not the base model's

"""Training all weights: exact, with a cached or a copied reference, and resumed."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM

from lit_qagent.__main__ import main
from lit_qagent.core.errors import ConfigError
from lit_qagent.data.batch import Sharing, collate_pairs
from lit_qagent.data.rendered import render_pair
from lit_qagent.models.backbone import build_backbone
from lit_qagent.models.q_heads import BothQHeads, ImplicitQHead, QHead, ScalarQHead
from lit_qagent.models.specs import LoraSpec
from lit_qagent.training.module import StepDPO
from tests.lit_qagent.training.parts import fit, make_full_module, weights_of
from tests.pair_folder import make_episodes, make_pair
from tests.reference import reference_action_log_prob
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import tiny_spec


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
    module = make_full_module(folder, reference="copy")
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
    cached, copied = make_full_module(model), make_full_module(model, reference="copy")
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
    module = make_full_module(folder, q_head=head, reference="copy")
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
    uninterrupted, resumed = (make_full_module(model, reference=reference) for _ in range(2))
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
        make_full_module(model, **settings)


def test_a_quantised_model_is_not_trained_whole(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"quantization 'nf4' does not allow; set it to none, or"):
        build_backbone(tiny_spec(model, quantization="nf4"), None)


def test_pairs_that_are_not_cached_need_a_copy(model: Path, pairs: Path) -> None:
    module = make_full_module(model)
    fit(module, pairs)

    [pair] = [t for t in [render_pair(make_pair(5, 0), module.renderer)] if t is not None]
    with pytest.raises(ConfigError, match=r"no copy of those before training is held; set model"):
        module(collate_pairs([pair], "batch").tokens)


def test_rounding_small_steps_away_is_said(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = StepDPO(tiny_spec(model, dtype="bfloat16"), None)

    module.configure_model()

    assert "bfloat16, which rounds small steps away; set model.backbone.dtype" in caplog.text


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

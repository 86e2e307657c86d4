"""The reference is computed once, packed, and a cached one is never the wrong one."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from lit_qagent.data.batch import PairTokens
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.data.rendering import TokenSequence
from lit_qagent.models.q_model import QModel
from lit_qagent.models.specs import LoraSpec
from lit_qagent.training import reference
from lit_qagent.training.module import StepDPO
from lit_qagent.training.reference import cache_key, fill_reference, hash_base
from tests.lit_qagent.training.parts import make_module, make_trainer
from tests.pair_folder import make_pairs, write_pairs
from tests.reference import reference_action_log_prob
from tests.tiny_q_model import tiny_q_model, tiny_spec

PAIRS = [
    PairTokens(TokenSequence([5, 6], [7, 8]), TokenSequence([5, 6], [9]), 1.0, 0.0, depth=0),
    PairTokens(TokenSequence([5, 6, 7], [8]), TokenSequence([5, 6, 7], [9]), 1.0, 0.0, depth=1),
]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), make_pairs(8))


class CountReferences(pl.Callback):
    """Counts how often the adapter is switched off for a pass."""

    def __init__(self) -> None:
        self.calls = 0
        self.is_autocast: set[bool] = set()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, StepDPO)
        pl_module.configure_model()
        assert pl_module.q_model is not None
        original = pl_module.q_model.reference_log_probs

        def counted(batch: Any) -> torch.Tensor:  # noqa: ANN401
            self.calls += 1
            self.is_autocast.add(torch.is_autocast_enabled("cpu"))
            return original(batch)

        pl_module.q_model.reference_log_probs = counted  # type: ignore[method-assign]


def fit(
    model: Path,
    pairs: Path,
    *callbacks: pl.Callback,
    precision: Any = "32-true",  # noqa: ANN401
    **settings: Any,  # noqa: ANN401
) -> tuple[StepDPO, CountReferences, Any]:
    module = make_module(model, **settings)
    count, data = CountReferences(), PreferenceDataModule(pairs, batch_size=4)
    make_trainer(count, *callbacks, precision=precision).fit(module, data)
    return module, count, data


def test_the_reference_is_computed_before_the_first_step_and_read_the_next_time(
    model: Path, pairs: Path, cache: Path
) -> None:
    first, count, data = fit(model, pairs)
    again, cached, _ = fit(model, pairs)

    # 6 training tasks of 2 pairs, 8 pairs at most at once: 2 passes; 1 validation task: 1 pass.
    assert count.calls == 3
    assert cached.calls == 0
    assert len(list(cache.iterdir())) == 2
    for (_, mine), (_, other) in zip(
        first.named_parameters(), again.named_parameters(), strict=True
    ):
        assert torch.equal(mine, other)
    assert first.q_model is not None
    base = first.q_model.backbone
    with torch.no_grad(), base.reference():
        for pair in data.pairs_of("train"):
            naive = [
                reference_action_log_prob(base.model, *side)
                for side in (pair.chosen, pair.rejected)
            ]
            assert pair.reference == pytest.approx([float(x) for x in naive], abs=1e-4)


def test_live_computes_it_with_every_batch_and_trains_the_same(
    model: Path, pairs: Path, cache: Path
) -> None:
    live, count, _ = fit(model, pairs, reference="live")
    cached, _, _ = fit(model, pairs)

    assert count.calls == 2 * 3 + 3 * 1  # batches of 2 epochs, validation with its sanity check
    expected = dict(cached.named_parameters())
    for name, weight in live.named_parameters():
        torch.testing.assert_close(weight, expected[name], atol=1e-5, rtol=1e-4)


class FirstMargin(pl.Callback):
    """Keeps the margin of the first batch, before any step."""

    value: float | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object
    ) -> None:
        if self.value is None:
            self.value = float(trainer.callback_metrics["train/margin"])


def test_the_cached_reference_is_rounded_as_training_rounds(
    model: Path, pairs: Path, cache: Path
) -> None:
    mixed = FirstMargin()

    fit(model, pairs)
    _, count, _ = fit(model, pairs, mixed, precision="bf16-mixed")

    assert count.is_autocast == {True}
    # An untrained adapter changes nothing but the rounding of batches of other sizes.
    assert mixed.value == pytest.approx(0, abs=0.002)
    assert len(list(cache.iterdir())) == 4  # what was computed in float32 was not taken


@pytest.mark.parametrize(
    ("dtype", "reference", "is_said"),
    [("bfloat16", "cached", True), ("bfloat16", "live", False), ("float32", "cached", False)],
)
def test_a_cached_reference_that_is_rounded_otherwise_is_said(
    model: Path,
    caplog: pytest.LogCaptureFixture,
    dtype: str,
    reference: Literal["cached", "live"],
    is_said: bool,
) -> None:
    module = StepDPO(tiny_spec(model, dtype=dtype), LoraSpec(rank=2), reference=reference)

    module.configure_model()

    assert ("noise in Q; set model.reference to live" in caplog.text) == is_said


def test_a_damaged_cache_is_computed_again_and_said(
    model: Path, pairs: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(model, pairs)
    for file in cache.iterdir():
        file.write_bytes(b"damaged")

    _, count, _ = fit(model, pairs)

    assert count.calls == 3
    assert "is damaged" in caplog.text


def test_a_cache_that_another_process_lacks_is_not_used(
    model: Path, pairs: Path, cache: Path
) -> None:
    module, count, data = fit(model, pairs)
    assert module.q_model is not None

    fill_reference(data, module.q_model, agree=lambda found: found)
    assert count.calls == 3
    fill_reference(data, module.q_model, agree=lambda found: False)
    assert count.calls == 6


def test_a_cache_with_a_value_missing_is_computed_again_and_said(
    model: Path, pairs: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(model, pairs)
    for file in cache.iterdir():
        save_file({"reference": load_file(file)["reference"].fill_(math.nan)}, file)

    _, count, _ = fit(model, pairs)

    assert count.calls == 3
    assert "has values missing" in caplog.text


def test_runs_that_write_one_entry_at_once_do_not_meet(cache: Path) -> None:
    path = cache / "entry.safetensors"
    values = torch.randn(5000, 2)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: reference._write(path, values), range(80)))

    assert [file.name for file in cache.iterdir()] == [path.name]
    assert torch.equal(load_file(path)["reference"], values)


def changed_config(q_model: QModel) -> QModel:
    """Change what the configuration makes of the same weights."""
    q_model.backbone.language_model.config.rms_norm_eps = 1e-3
    return q_model


def changed_weight(q_model: QModel) -> QModel:
    """Change one frozen number by a little."""
    with torch.no_grad():
        q_model.backbone.language_model.get_parameter("model.norm.weight")[7] += 1e-3
    return q_model


def test_the_key_changes_with_everything_the_values_depend_on(model: Path) -> None:
    def key(
        pairs: list[PairTokens] = PAIRS,
        change: Callable[[QModel], QModel] = lambda same: same,
        precision: str = "32-true",
        **spec: object,
    ) -> str:
        base = hash_base(change(tiny_q_model(tiny_spec(model, **spec))), precision)
        return cache_key(base, pairs)

    other_tokens = [PAIRS[0]._replace(rejected=TokenSequence([5, 6], [10])), PAIRS[1]]
    moved = [
        PAIRS[0]._replace(
            chosen=TokenSequence([5], [6, 7, 8]), rejected=TokenSequence([5], [6, 9])
        ),
        PAIRS[1],
    ]
    observed = [
        PAIRS[0]._replace(chosen=TokenSequence([5, 6], [7, 8], observed=((0, 1),))),
        PAIRS[1],
    ]
    different = [
        key(),
        key(change=changed_weight),
        key(change=changed_config),
        key(dtype="bfloat16"),
        key(precision="bf16-mixed"),
        key(revision="other"),
        key(other_tokens),
        key(moved),
        key(observed),
        key(PAIRS[::-1]),
        key(PAIRS[:1]),
    ]
    assert len(set(different)) == len(different)


def test_the_key_does_not_change_with_the_adapter_or_labels(model: Path) -> None:
    labelled = [pair._replace(q_chosen=0.3, name="other", group=4) for pair in PAIRS]

    keys = {
        cache_key(hash_base(tiny_q_model(tiny_spec(model), rank=rank), "32-true"), pairs)
        for rank, pairs in ((2, PAIRS), (4, labelled))
    }

    assert len(keys) == 1

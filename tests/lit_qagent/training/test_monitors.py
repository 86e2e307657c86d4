"""Speed on the progress bar, counted by hand; a model that cannot share trains unpacked, said."""

from pathlib import Path

import pytest

from lit_qagent.data.batch import Sharing
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.training.monitors import LogSpeed
from tests.lit_qagent.training.parts import Watch, make_module, make_trainer
from tests.pair_folder import make_pairs, write_pairs
from tests.tiny_model import save_tiny_model


def fit(model: Path, folder: Path, sharing: Sharing) -> Watch:
    watch = Watch()
    pairs = write_pairs(folder / "pairs", make_pairs(8))
    data = PreferenceDataModule(pairs, batch_size=4, sharing=sharing)
    make_trainer(LogSpeed(), watch, max_epochs=1).fit(make_module(model), data)
    return watch


def test_the_progress_bar_shows_speed_padding_sharing_and_memory(tmp_path: Path) -> None:
    watch = fit(save_tiny_model(tmp_path / "model"), tmp_path, "pair")

    batch = watch.batches[-1]
    tokens = batch.tokens
    real = int(tokens.is_token.sum())
    assert watch.shown["speed/padding"] == pytest.approx(1 - real / tokens.token_ids.numel())
    assert watch.shown["speed/sharing"] == pytest.approx(batch.num_unshared_tokens / real)
    assert watch.shown["speed/sharing"] > 1.5
    assert watch.shown["speed/tokens_per_s"] > 0
    assert watch.shown["speed/memory_gb"] > 0.1


def test_a_model_that_packing_cannot_serve_trains_unpacked_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = save_tiny_model(tmp_path / "model", kind="bloom")  # ALiBi counts within the row

    watch = fit(model, tmp_path, "batch")

    assert watch.is_branched() == {False}
    assert watch.shown["speed/sharing"] == 1.0
    assert "cannot keep sequences apart that share a row (recurrent" in caplog.text
    assert "data.sharing is none instead of batch" in caplog.text


def test_a_model_with_a_window_shares_what_stays_within_it_and_the_log_counts_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = save_tiny_model(tmp_path / "model", kind="phi3", sliding_window=120)

    watch = fit(model, tmp_path, "batch")

    # Of 6 tasks one pair in two, the one at depth 1, has more than 120 tokens.
    assert "no sequence of more than 120 tokens share a row" in caplog.text
    assert "6 of 12 train, 1 of 2 valid, 1 of 2 test pairs are computed unshared" in caplog.text
    assert watch.is_branched() == {True, False}

"""In- and out-of-distribution sets: measured by themselves, shown side by side."""

import json
from pathlib import Path

import lightning.pytorch as pl
import pytest
from lightning.pytorch.loggers import MLFlowLogger

from lit_qagent.core.errors import ConfigError, DataError, OverlapError
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.training.callbacks import ExportCheckpoint
from lit_qagent.training.monitors import LogReliability
from lit_qagent.training.sets import CompareSets, as_markdown, side_by_side
from tests.lit_qagent.training.parts import make_module, make_trainer
from tests.pair_folder import make_pair, write_pairs

METRICS = ("loss", "accuracy", "margin", "rank_correlation", "kendall_tau", "calibration_error")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of other tasks, one at depth 0 and one at depth 3 each."""
    found = [
        make_pair(task, depth, task_id=f"new-{task}", environment="cellar")
        for task in range(20, 23)
        for depth in (0, 3)
    ]
    return write_pairs(tmp_path_factory.mktemp("other"), found)


def short_trainer(*callbacks: pl.Callback, logger: MLFlowLogger | bool = False) -> pl.Trainer:
    return make_trainer(*callbacks, max_epochs=1, logger=logger, log_every_n_steps=1)


def test_a_further_set_is_measured_by_itself_as_if_it_were_the_only_one(
    model: Path, pairs: Path, other: Path
) -> None:
    module, trainer = make_module(model), short_trainer()
    trainer.fit(module, PreferenceDataModule(pairs, batch_size=4, also={"ood": other}))
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    data = PreferenceDataModule(pairs, batch_size=4, also={"ood": other})
    short_trainer().validate(module, data, verbose=False)

    assert {f"{p}/{name}" for p in ("val", "val_ood") for name in METRICS} <= found.keys()
    assert "val_ood/accuracy_by_depth/03" in found
    assert "val/accuracy_by_depth/03" not in found
    assert len(module.tables["val_ood"]) == data.num_pairs["ood"] == 6
    # Alone, with nothing else to validate on.
    alone = PreferenceDataModule(pairs, valid_fraction=0, test_fraction=0, also={"new": other})
    [values] = short_trainer().validate(module, alone, verbose=False)
    for name in METRICS:
        assert values[f"val_new/{name}"] == pytest.approx(found[f"val_ood/{name}"], abs=1e-5)
    assert not any(name.startswith("val/") for name in values)


@pytest.mark.integration
@pytest.mark.filterwarnings("default")  # mlflow and its database library warn of themselves
def test_the_table_is_printed_and_logged_with_a_plot(
    model: Path, pairs: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = MLFlowLogger(
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", artifact_location=str(tmp_path / "files")
    )
    module = make_module(model)
    data = PreferenceDataModule(pairs, batch_size=4, also={"ood": other})
    trainer = short_trainer(CompareSets(), LogReliability(), logger=logger)

    trainer.fit(module, data)
    printed = capsys.readouterr().out
    trainer.test(module, data, verbose=False)
    after = capsys.readouterr().out

    files = tmp_path / "files" / str(logger.run_id) / "artifacts"
    table = json.loads((files / "sets" / "test.json").read_text())
    assert table["accuracy"].keys() == {"test", "test_ood"}
    assert table["accuracy_by_depth/03"].keys() == {"test_ood"}
    shown = [line.split() for line in after.splitlines() if "kendall_tau" in line]
    assert shown[0][-2] == f"{table['kendall_tau']['test_ood']:.3f}"
    assert "val_ood" in printed
    for name in ("sets/val_step_5.png", "sets/test.png", "reliability/test.png", "sets/test.md"):
        assert (files / name).stat().st_size > 100


def test_a_single_set_has_nothing_beside_it(
    model: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short_trainer(CompareSets()).validate(
        make_module(model), PreferenceDataModule(pairs), verbose=False
    )
    assert "held-out sets" not in capsys.readouterr().out


def test_the_table_by_hand() -> None:
    metrics = {"val/margin": 0.5, "val_ood/margin": 0.25, "val_ood/by/03": 1.0, "train/loss": 9.0}

    table = side_by_side(metrics, ["val", "val_ood"])

    assert as_markdown(table).splitlines() == [
        "| metric | val | val_ood |",
        "|---|---|---|",
        "| margin | 0.500 | 0.250 |",
        "| by/03 |  | 1.000 |",
    ]


def test_a_set_with_tasks_that_are_trained_on_is_refused(model: Path, pairs: Path) -> None:
    data = PreferenceDataModule(pairs, also={"ood": pairs})

    with pytest.raises(OverlapError, match=r"data.also.ood: \d+ of its tasks are trained on, such"):
        short_trainer().fit(make_module(model), data)


def test_a_set_whose_pairs_are_all_too_long_is_refused(
    model: Path, pairs: Path, tmp_path: Path
) -> None:
    long = make_pair(30, 0, chosen=[{"role": "assistant", "content": "x" * 3000}])
    folder = write_pairs(tmp_path, [long])

    with pytest.raises(DataError, match=r"1 pairs of data.also.ood are longer than model.max_len"):
        short_trainer().fit(make_module(model), PreferenceDataModule(pairs, also={"ood": folder}))
    data = PreferenceDataModule(pairs, also={"ood": folder}, too_long="drop")
    with pytest.raises(DataError, match=r"data.also.ood: all 1 pairs are longer than 2048 tokens"):
        short_trainer().fit(make_module(model), data)


@pytest.mark.parametrize("name", ["train", "a/b", ""])
def test_names_that_mean_something_else_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"names of data.also must be letters"):
        PreferenceDataModule(Path("pairs"), also={name: Path("other")})


def test_other_held_out_pairs_than_those_of_training_are_said(
    model: Path, pairs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module, trainer = make_module(model), short_trainer()
    trainer.fit(module, PreferenceDataModule(pairs))
    trainer.test(module, PreferenceDataModule(pairs), verbose=False)
    assert "may have been trained on" not in caplog.text

    trainer.test(module, PreferenceDataModule(pairs, seed=1, test_fraction=0.3), verbose=False)

    assert "held-out pairs may have been trained on" in caplog.text
    assert "split_seed 0 then, 1 now" in caplog.text
    assert "'test': 0.1} then, {'valid': 0.1, 'test': 0.3} now" in caplog.text


def test_pairs_that_an_earlier_training_used_are_no_held_out_pairs(
    model: Path, pairs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = make_module(model)
    short_trainer(ExportCheckpoint(tmp_path / "a")).fit(first, PreferenceDataModule(pairs))
    assert "may have been trained on" not in caplog.text

    second = make_module(model, checkpoint=tmp_path / "a")
    short_trainer(ExportCheckpoint(tmp_path / "b")).fit(second, PreferenceDataModule(pairs, seed=1))
    assert caplog.text.count("split_seed 0 then, 1 now") == 1

    caplog.clear()
    third = make_module(model, checkpoint=tmp_path / "b")
    short_trainer().validate(third, PreferenceDataModule(pairs, seed=1), verbose=False)
    assert "split_seed 0 then, 1 now" in caplog.text

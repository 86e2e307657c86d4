from pathlib import Path
from typing import Any

import pytest

from lit_qagent.command_line import load_yaml
from lit_qagent.core.errors import ConfigError
from lit_qagent.improve.configs import RoundPlan, read_configs, round_configs
from lit_qagent.improve.spec import (
    Improve,
    LoopBudget,
    RoundTasks,
    StageConfigs,
    ValidationTasks,
)

CONFIGS = Path(__file__).parents[3] / "configs"


def quickstart(folder: Path, **changes: Any) -> Improve:  # noqa: ANN401
    names = ("collect", "pairs", "fit", "predict")
    paths = {name: CONFIGS / f"{name}_quickstart.yaml" for name in names}
    return Improve(
        folder=folder,
        configs=StageConfigs(**paths | changes.pop("configs", {})),
        tasks=RoundTasks(per_round=10),
        validation=ValidationTasks(num_tasks=20),
        **changes,
    )


def test_a_round_keeps_what_the_loop_does_not_decide(tmp_path: Path) -> None:
    spec = quickstart(tmp_path, start="accepted")
    plan = RoundPlan(
        number=2,
        folder=tmp_path / "round_2",
        accepted=tmp_path / "round_1" / "checkpoint",
        pairs=(tmp_path / "round_1" / "pairs",),
        mlflow_run="abc",
    )
    base = read_configs(spec)
    mlflow = {"class_path": "lightning.pytorch.loggers.MLFlowLogger"}
    base["collect"]["logger"] = mlflow

    made = round_configs(base, spec, plan)

    nested = made["collect"]["logger"]["init_args"]
    assert nested == {"run_name": "round 2 collect", "tags": {"mlflow.parentRunId": "abc"}}
    assert mlflow == {"class_path": "lightning.pytorch.loggers.MLFlowLogger"}

    before = load_yaml((CONFIGS / "fit_quickstart.yaml").read_text())
    assert base["fit"] == before  # the base is not touched
    fit = made["fit"]
    assert fit["model"]["optimizer"] == before["model"]["optimizer"]
    assert fit["model"]["checkpoint"] == str(plan.accepted)
    logger = fit["trainer"]["logger"]["init_args"]
    assert (logger["run_name"], logger["tags"]) == ("round 2 fit", {"mlflow.parentRunId": "abc"})
    callbacks = {one["class_path"].rpartition(".")[2]: one for one in fit["trainer"]["callbacks"]}
    kept = [one["class_path"].rpartition(".")[2] for one in before["trainer"]["callbacks"]]
    assert list(callbacks) == kept
    assert callbacks["ModelCheckpoint"]["init_args"]["dirpath"] == str(plan.folder / "fit")
    export = {"folder": str(plan.checkpoint), "dtype": "bfloat16"}
    assert callbacks["ExportCheckpoint"]["init_args"] == export
    data = made["predict"]["data"]["init_args"]
    assert data["tasks"] == {"num_tasks": 20, "split": "valid", "first_task": 0, "seeds": [0]}
    assert made["predict"]["model"]["backbone"] == before["model"]["backbone"]
    assert made["collect"]["environment"] == data["environment"]


def test_the_export_keeps_its_options_and_is_added_where_there_is_none(tmp_path: Path) -> None:
    spec = quickstart(tmp_path, configs={"fit": CONFIGS / "fit_webshop.yaml"})
    plan = RoundPlan(number=1, folder=tmp_path / "round_1")
    folder = str(plan.checkpoint)
    base = read_configs(spec)

    [*_, export] = round_configs(base, spec, plan)["fit"]["trainer"]["callbacks"]

    assert export["init_args"] == {"folder": folder, "dtype": "bfloat16"}
    base["fit"]["trainer"]["callbacks"] = None
    [export] = round_configs(base, spec, plan)["fit"]["trainer"]["callbacks"]
    assert export["class_path"].endswith("ExportCheckpoint")
    assert export["init_args"] == {"folder": folder}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("collect", "split: test", "searches split 'test'"),
        ("collect", "a: 1\na: 2", "given twice"),
        ("pairs", "- rule", "must hold the options of the command by name, got list"),
        ("predict", "data: {agents: {plain: {}}}", "name both, such as q_guided"),
        ("predict", "data: {agents: {q_guided: {}}}", "name both, such as q_guided"),
    ],
)
def test_configs_that_cannot_work_are_refused(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "one.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_configs(quickstart(tmp_path, configs={name: tmp_path / "one.yaml"}))


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    spec = quickstart(tmp_path, configs={"fit": tmp_path / "none.yaml"})
    with pytest.raises(ConfigError, match=r"configs.fit: .*none.yaml cannot be read"):
        read_configs(spec)


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="must not be 'test'"):
        ValidationTasks(num_tasks=10, split="test")
    with pytest.raises(ConfigError, match="num_tasks must be >= 2, got 1"):
        ValidationTasks(num_tasks=1)
    with pytest.raises(ConfigError, match=r"validation\.first_task must be >= 0, got -1"):
        ValidationTasks(num_tasks=10, first_task=-1)
    for seeds in ([], [0, 0]):
        with pytest.raises(ConfigError, match=r"validation\.seeds must be different numbers"):
            ValidationTasks(num_tasks=10, seeds=seeds)
    with pytest.raises(ConfigError, match="per_round must be >= 1, got 0"):
        RoundTasks(per_round=0)
    with pytest.raises(ConfigError, match=r"budget\.rounds must be > 0, got 0"):
        LoopBudget(rounds=0)


def test_a_budget_in_dollars_needs_prices(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs prices"):
        quickstart(tmp_path, budget=LoopBudget(dollars=1.0))

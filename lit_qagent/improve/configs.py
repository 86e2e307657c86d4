"""The configs of one round, made from those for a run by hand; what is not named here stays."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from lit_qagent.command_line import load_yaml
from lit_qagent.core.errors import ConfigError
from lit_qagent.improve.spec import Improve

Config = dict[str, Any]
_SCORER = "lit_qagent.models.checkpoint_scorer.CheckpointScorer"
_EXPORT = "lit_qagent.training.callbacks.ExportCheckpoint"


@dataclass(frozen=True, kw_only=True)
class RoundPlan:
    """What a round starts from.

    Attributes:
        number: From 1.
        folder: Everything of the round.
        accepted: Checkpoint of the Q-model accepted last; None before the first.
        pairs: Folders of the pairs of earlier rounds.
        mlflow_run: Under which MLflow run those of the commands go; None without MLflow.
    """

    number: int
    folder: Path
    accepted: Path | None = None
    pairs: tuple[Path, ...] = ()
    mlflow_run: str | None = None

    @property
    def trees(self) -> Path:
        """The tree store."""
        return self.folder / "trees"

    @property
    def new_pairs(self) -> Path:
        """The pairs of this round."""
        return self.folder / "pairs"

    @property
    def checkpoint(self) -> Path:
        """The Q-model that this round trains."""
        return self.folder / "checkpoint"

    @property
    def results(self) -> Path:
        """The episodes on the validation tasks."""
        return self.folder / "predict"


def read_configs(spec: Improve) -> dict[str, Config]:
    """Read the config of each command.

    Raises:
        ConfigError: One cannot be read, or is no mapping.
    """
    found = {}
    for name, path in spec.configs.paths().items():
        try:
            value = load_yaml(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"configs.{name}: {path} cannot be read: {error}") from error
        if not isinstance(value, dict):
            raise ConfigError(
                f"configs.{name}: {path} must hold the options of the command by name, "
                f"got {type(value).__name__}"
            )
        found[name] = value
    _refuse_test_split(found["collect"])
    treatment_and_control(found["predict"])
    return found


def treatment_and_control(predict: Mapping[str, Any]) -> tuple[str, str]:
    """Return the agent that is judged, and what it has to beat before any Q-model was accepted.

    Raises:
        ConfigError: The config names no such two agents.
    """
    data = init_args(predict.get("data", {}))
    agents, play = data.get("agents", {}), data.get("play", {})
    treatment = play.get("treatment", "q_guided")
    controls = play.get("controls") or [name for name in agents if name != treatment]
    if treatment not in agents or not controls or controls[0] not in agents:
        raise ConfigError(
            f"configs.predict: the loop judges data.play.treatment ({treatment!r}) against the "
            f"first of data.play.controls ({controls[:1]}), but its agents are {sorted(agents)}; "
            "name both, such as q_guided and random_of_n"
        )
    return treatment, controls[0]


def round_configs(base: Mapping[str, Config], spec: Improve, plan: RoundPlan) -> dict[str, Config]:
    """Return the configs of a round by command; nothing is written."""
    made = {name: copy.deepcopy(config) for name, config in base.items()}
    _set_collect(made["collect"], made["fit"], spec, plan)
    made["pairs"] |= {"store": str(plan.trees), "output": str(plan.new_pairs)}
    _set_fit(made["fit"], spec, plan)
    _set_predict(made["predict"], made["fit"], spec, plan)
    return made


def write_configs(configs: Mapping[str, Config], folder: Path) -> dict[str, Path]:
    """Write the configs into a folder, one file each; return name -> path."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, config in configs.items():
        paths[name] = folder / f"{name}.yaml"
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        paths[name].write_text(text, encoding="utf-8")
    return paths


def mlflow_logger(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the settings of a config's MLflow logger; None if it has none."""
    return _mlflow_settings(config.get("trainer", {}).get("logger"))


def init_args(part: Config) -> Config:
    """Return the arguments of a part that may be written with its class or without."""
    if not {"class_path", "init_args"} & set(part):
        return part
    arguments: Config = part.setdefault("init_args", {})
    return arguments


def _mlflow_settings(loggers: object) -> dict[str, Any] | None:
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        if isinstance(logger, dict) and _is_class(logger, "MLFlowLogger"):
            settings: dict[str, Any] = logger.setdefault("init_args", {})
            return settings
    return None


def _set_collect(collect: Config, fit: Config, spec: Improve, plan: RoundPlan) -> None:
    first = spec.tasks.first_of(plan.number)
    collect |= {"store": str(plan.trees), "first_task": first, "num_tasks": spec.tasks.per_round}
    collect["seed"] = collect.get("seed", 0) + plan.number - 1
    _nest(_mlflow_settings(collect.get("logger")), plan, "collect")
    if plan.accepted is None:
        return
    collect["search"] = collect.get("search", {}) | spec.search
    scorer: Config = {"checkpoint": str(plan.accepted)}
    backbone = fit.get("model", {}).get("backbone")
    if backbone:
        scorer["backbone"] = backbone
    collect["scorer"] = {"class_path": _SCORER, "init_args": scorer}


def _set_fit(fit: Config, spec: Improve, plan: RoundPlan) -> None:
    folders = [*(plan.pairs if spec.train_on == "all" else ()), plan.new_pairs]
    data = init_args(fit.setdefault("data", {}))
    if len(folders) == 1:
        data["pairs"] = str(folders[0])
    else:
        data["pairs"] = [{"path": str(folder)} for folder in folders]
    if spec.start == "accepted" and plan.accepted is not None:
        fit.setdefault("model", {})["checkpoint"] = str(plan.accepted)
    trainer = fit.setdefault("trainer", {})
    callbacks = trainer.get("callbacks") or []
    for callback in callbacks:
        if _is_class(callback, "ModelCheckpoint"):
            callback.setdefault("init_args", {})["dirpath"] = str(plan.folder / "fit")
    exports = [one for one in callbacks if _is_class(one, "ExportCheckpoint")]
    export: Config = exports[0] if exports else {"class_path": _EXPORT}
    export.setdefault("init_args", {})["folder"] = str(plan.checkpoint)
    # A single one, as a round has a single checkpoint.
    trainer["callbacks"] = [*(one for one in callbacks if one not in exports), export]
    _set_logger(fit, plan, "fit")


def _set_predict(predict: Config, fit: Config, spec: Improve, plan: RoundPlan) -> None:
    model = predict.setdefault("model", {})
    model["checkpoint"] = str(plan.checkpoint)
    backbone = fit.get("model", {}).get("backbone")
    if backbone:
        model.setdefault("backbone", backbone)
    data = init_args(predict["data"])
    data["tasks"] = asdict(spec.validation)
    data.setdefault("play", {})["output"] = str(plan.results)
    if spec.prices:
        data["play"]["prices"] = asdict(spec.prices)
    _set_logger(predict, plan, "predict")


def _set_logger(config: Config, plan: RoundPlan, command: str) -> None:
    """Nest the command's MLflow run; other loggers write into the folder of the round."""
    config.setdefault("trainer", {}).setdefault("default_root_dir", str(plan.folder))
    _nest(mlflow_logger(config), plan, command)


def _nest(settings: dict[str, Any] | None, plan: RoundPlan, command: str) -> None:
    """Name a command's MLflow run, and put it under that of the round."""
    if settings is None or plan.mlflow_run is None:
        return
    settings["run_name"] = f"round {plan.number} {command}"
    settings["tags"] = {**settings.get("tags", {}), "mlflow.parentRunId": plan.mlflow_run}


def _refuse_test_split(collect: Mapping[str, Any]) -> None:
    if collect.get("split") == "test":
        raise ConfigError(
            "configs.collect searches split 'test', which is for the final report; "
            "search training tasks"
        )


def _is_class(part: Mapping[str, Any], name: str) -> bool:
    return str(part.get("class_path", "")).rpartition(".")[2] == name

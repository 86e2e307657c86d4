"""The loop in MLflow: one run for the loop, one nested in it per round, the commands below those.

It talks to MLflow directly, as the process of a loop waits for hours and need not hold torch.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from lit_qagent.improve.configs import mlflow_logger
from lit_qagent.improve.record import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOOP = "loop"
RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
_PARENT = "mlflow.parentRunId"


class Tracker:
    """Writes to where the fit config's MLflow logger writes; does nothing without one.

    Args:
        fit: The fit config.
        record: The loop; the ids of its runs are kept there, so that a resumed loop finds them.
    """

    def __init__(self, fit: Mapping[str, Any], record: Record) -> None:
        self._record = record
        self._client: MlflowClient | None = None
        self._open_round: str | None = None
        settings = mlflow_logger(fit)
        if settings is None:
            return
        self._client = _connect(settings.get("tracking_uri"))
        name = settings.get("experiment_name", "lightning_logs")
        known = self._client.get_experiment_by_name(name)
        self._experiment = known.experiment_id if known else self._client.create_experiment(name)

    def begin(self) -> None:
        """Begin the loop's run, or go on with it."""
        if self._client is None:
            return
        if LOOP in self._record.mlflow:
            self._client.update_run(self._record.mlflow[LOOP], status="RUNNING")
        else:
            self._make_run(LOOP, f"improve {self._record.folder.name}", {})

    def round_run(self, number: int) -> str | None:
        """Return the run of a round, under that of the loop, open; None without MLflow."""
        if self._client is None:
            return None
        key = str(number)
        if key in self._record.mlflow:
            self._client.update_run(self._record.mlflow[key], status="RUNNING")
        else:
            self._make_run(key, f"round {number}", {_PARENT: self._record.mlflow[LOOP]})
        self._open_round = key
        return self._record.mlflow[key]

    def log_round(self, row: Mapping[str, Any]) -> None:
        """Log what a round found, in its run and along the loop's."""
        if self._client is None:
            return
        metrics = round_metrics(row)
        number = int(row["round"])
        for key in (str(number), LOOP):
            for name, value in metrics.items():
                self._client.log_metric(self._record.mlflow[key], name, value, step=number)
        self._client.set_tag(self._record.mlflow[str(number)], "decision", row["why"])
        self._client.set_terminated(self._record.mlflow[str(number)])
        self._open_round = None

    def end(self, record: Mapping[str, Any], status: RunStatus = "FINISHED") -> None:
        """Close the loop's run, with the whole record in it, and that of a round cut short.

        Args:
            record: The record.
            status: Of the loop's run; a round cut by the budget alone is KILLED.
        """
        if self._client is None:
            return
        run = self._record.mlflow[LOOP]
        self._client.log_dict(run, dict(record), "improve.json")
        if self._open_round:
            cut: RunStatus = "KILLED" if status == "FINISHED" else status
            self._client.set_terminated(self._record.mlflow[self._open_round], status=cut)
        self._client.set_terminated(run, status=status)

    def _make_run(self, key: str, name: str, tags: Mapping[str, str]) -> None:
        assert self._client is not None
        run = self._client.create_run(self._experiment, run_name=name, tags=dict(tags))
        self._record.mlflow[key] = run.info.run_id
        self._record.save()


def _connect(uri: str | None) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def round_metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a round by names that MLflow accepts."""
    values = {
        "improve/accepted": row["accepted"],
        "improve/reward": row["reward"],
        "improve/reward_before": row["reward_before"],
        "improve/pairs": row["pairs"],
        **{f"improve/difference_{key}": value for key, value in row["difference"].items()},
        **{f"improve/collect_{key}": value for key, value in row["collect"].items()},
        **{f"improve/spent_{key}": value for key, value in row["spent"].items()},
    }
    return {name: float(value) for name, value in values.items() if value is not None}

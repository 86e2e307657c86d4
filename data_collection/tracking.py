"""The numbers of a collection in an experiment tracker, while it runs.

Everything goes through one of Lightning's loggers, in a thread of its own: a tracking server that
is slow or gone costs a warning, never a tree. A collection that is gone on with goes on in the
same MLflow run; its id stands beside the store's manifest, which does not know of it.
"""

import json
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from jsonargparse import Namespace

from data_collection.budget import Budget
from data_collection.iterations import Cost
from data_collection.summary import Summary
from lit_qagent.command_line import Parser
from lit_qagent.core.manifest import write_json

RUN_FILE = "tracking.json"
_EVERY_S = 10.0
_END_LIMIT_S = 30.0
_HIDDEN = "(hidden)"
_SECRET_NAME = re.compile(
    r"(api_?key|secret|password|passwd|credentials?|authorization|(^|_)token)$", re.IGNORECASE
)
_USER_IN_ADDRESS = re.compile(r"(\w+://)[^/@\s]+@")
_log = logging.getLogger(__name__)


class RunLogger(Protocol):
    """What is asked of a logger; those of Lightning fit."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers at a step."""
        ...

    def log_hyperparams(self, params: Any) -> None:  # noqa: ANN401 (each logger has its own type)
        """Log settings."""
        ...

    def finalize(self, status: str = "success") -> None:
        """Close the run."""
        ...


class Tracker:
    """Logs a collection now and then, from a thread.

    Args:
        logger: Where to.
        folder: The store's folder.
        settings: What the store was made with; secrets are left out of what is logged.
        snapshot: Returns the numbers of this moment and may be called from any thread.
        every_s: Seconds from one log to the next.
    """

    def __init__(
        self,
        logger: RunLogger,
        folder: Path,
        settings: Mapping[str, Any],
        snapshot: Callable[[], Mapping[str, float]],
        *,
        every_s: float = _EVERY_S,
    ) -> None:
        self._logger = logger
        self._folder = folder
        self._settings = settings
        self._snapshot = snapshot
        self._every_s = every_s
        self._ended = threading.Event()
        self._status = "failed"
        self._files: Sequence[Path] = ()
        self._has_begun = False
        self._is_failing = False
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)

    def start(self) -> None:
        """Begin to log."""
        self._thread.start()

    def end(self, status: str, files: Sequence[Path]) -> None:
        """Log the last numbers and some files, close the run, and wait for it within limits."""
        self._status, self._files = status, files
        self._ended.set()
        self._thread.join(_END_LIMIT_S)
        if self._thread.is_alive():
            _log.warning(
                "the tracking server has not taken everything within %g s; the store has it all",
                _END_LIMIT_S,
            )

    def _work(self) -> None:
        while not self._ended.is_set():
            self._try(self._log_now)
            self._ended.wait(self._every_s)
        self._try(self._finish)

    def _try(self, do: Callable[[], None]) -> None:
        """Do something that may fail in any way that a server and its client know."""
        try:
            do()
            self._is_failing = False
        except Exception as error:
            if not self._is_failing:
                _log.warning("tracking failed, the collection goes on: %s", _in_a_line(error))
            self._is_failing = True

    def _log_now(self) -> None:
        if not self._has_begun:
            self._begin()
            self._has_begun = True
        numbers = self._snapshot()
        self._logger.log_metrics(numbers, int(numbers["collect/iterations"]))

    def _begin(self) -> None:
        if _is_mlflow(self._logger):
            logger: Any = self._logger
            remembered = {"place": _place(logger.experiment.tracking_uri), "run_id": logger.run_id}
            write_json(self._folder / RUN_FILE, remembered)
            logger.experiment.update_run(logger.run_id, status="RUNNING")
        self._logger.log_hyperparams(redacted(self._settings))

    def _finish(self) -> None:
        self._log_now()
        if _is_mlflow(self._logger):
            logger: Any = self._logger
            for path in self._files:
                logger.experiment.log_artifact(logger.run_id, str(path), "collect")
        self._logger.finalize(self._status)


@contextmanager
def tracked(tracker: Tracker | None, files: Sequence[Path]) -> Iterator[None]:
    """Log a collection while it runs; nothing without a tracker.

    Args:
        tracker: Not started yet.
        files: What to keep with the run at its end.
    """
    if tracker is None:
        yield
        return
    tracker.start()
    status = "failed"
    try:
        yield
        status = "success"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        tracker.end(status, [path for path in files if path.exists()])


def make_logger(spec: Namespace | None, store: Path) -> RunLogger | None:
    """Make the logger of a config, in the run that an earlier collection into the store has made.

    Args:
        spec: Its class and arguments; None for no logger.
        store: The store's folder.

    Returns:
        The logger; None if there is none, or if it cannot be made, with a warning.
    """
    if spec is None:
        return None
    spec = spec.clone()
    arguments = spec.get("init_args")
    if arguments is not None and "run_id" in arguments and arguments["run_id"] is None:
        arguments["run_id"] = _remembered_run(store, str(arguments.get("tracking_uri")))
    parser = Parser()
    parser.add_argument("--logger", type=RunLogger)
    try:
        config = Namespace(logger=spec)  # type: ignore[no-untyped-call]
        logger: RunLogger = parser.instantiate(config).logger
    except Exception as error:  # whatever its server and its client know
        _log.warning(
            "the logger cannot be made, the collection goes on without it: %s", _in_a_line(error)
        )
        return None
    return logger


def collection_metrics(summary: Summary, num_planned: int, budget: Budget) -> dict[str, float]:
    """Return the numbers to log."""
    cost = Cost(prompt_tokens=summary.prompt_tokens, generated_tokens=summary.generated_tokens)
    metrics: dict[str, float] = {
        "collect/trees_planned": num_planned,
        "collect/trees_started": summary.trees,
        "collect/trees_done": summary.finished,
        "collect/trees_failed": summary.failures + summary.not_started,
        "collect/success_rate": summary.successes / summary.trees if summary.trees else 0.0,
        "collect/mean_best_reward": summary.mean_best_reward,
        "collect/nodes": summary.nodes,
        "collect/iterations": summary.iterations,
        "collect/requests": summary.requests,
        "collect/prompt_tokens": summary.prompt_tokens,
        "collect/generated_tokens": summary.generated_tokens,
        "collect/generated_tokens_per_second": summary.run_tokens_per_second,
        "collect/invalid_rate": summary.invalid_rate,
        "collect/seconds": summary.seconds,
    }
    if budget.dollars_per_million_prompt_tokens or budget.dollars_per_million_generated_tokens:
        metrics["collect/dollars"] = budget.dollars(cost)
    return {name: float(value) for name, value in metrics.items()}


def redacted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without passwords, keys, and users in addresses.

    Examples:
        >>> redacted({"api_key": "abc", "max_tokens": 5, "url": "http://me:pw@host/v1"})
        {'api_key': '(hidden)', 'max_tokens': 5, 'url': 'http://host/v1'}
    """

    def plain(name: str, value: Any) -> Any:  # noqa: ANN401 (JSON values)
        if isinstance(value, Mapping):
            return redacted(value)
        if isinstance(value, list | tuple):
            return [plain(name, each) for each in value]
        if isinstance(value, str) and _SECRET_NAME.search(name):
            return _HIDDEN
        return _place(value) if isinstance(value, str) else value

    return {name: plain(name, value) for name, value in settings.items()}


def _remembered_run(store: Path, tracking_uri: str) -> str | None:
    """Return the run of an earlier collection into this store, at this place; None if none is."""
    try:
        remembered = json.loads((store / RUN_FILE).read_text(encoding="utf-8"))
        is_here = remembered["place"] == _place(tracking_uri)
        return str(remembered["run_id"]) if is_here else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("%s cannot be read (%s); a new run begins", store / RUN_FILE, error)
        return None


def _place(address: str) -> str:
    """Return an address without user and password."""
    return _USER_IN_ADDRESS.sub(r"\1", address)


def _is_mlflow(logger: RunLogger) -> bool:
    """Return whether a logger has runs and an MLflow client; asking it for them may connect."""
    return hasattr(type(logger), "run_id") and hasattr(type(logger), "experiment")


def _in_a_line(error: Exception) -> str:
    text = _place(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:300]}"

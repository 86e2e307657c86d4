"""Searches many tasks at once in one event loop, so that the policy's batch stays full."""

import asyncio
import json
import signal
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

from data_collection.budget import RunLimits
from data_collection.executors import ClusterFailure, Executor, LocalExecutor
from data_collection.manifest import MANIFEST_FILE
from data_collection.outage import Outage
from data_collection.progress import ProgressDisplay, ProgressMeter
from data_collection.setup import SearchSetup
from data_collection.store import SUMMARY_FILE, TreeStore
from data_collection.summary import Summary, TreeCounts, count_tree, summarize
from data_collection.tracking import RunLogger, Tracker, collection_metrics, tracked
from data_collection.workers import CLOSE_LIMIT_S, Run, work_all
from lit_qagent.core.errors import ConfigError, DataError, PolicyFailure
from lit_qagent.core.records import Task


def choose_tasks(
    setup: SearchSetup, split: str, first_task: int, num_tasks: int | None
) -> list[Task]:
    """Return a range of a split's tasks, in the world's order.

    Raises:
        ConfigError: The range is empty or reaches beyond the split.
        DataError: Two tasks share an id.
    """
    tasks = setup.environment.tasks(split)
    end = len(tasks) if num_tasks is None else first_task + num_tasks
    if not 0 <= first_task < end <= len(tasks):
        raise ConfigError(
            f"split {split!r} of {setup.environment.name} has {len(tasks)} tasks; "
            f"first_task={first_task} and num_tasks={num_tasks} do not name a range of them"
        )
    chosen = list(tasks[first_task:end])
    ids = [task.task_id for task in chosen]
    if len(set(ids)) < len(ids):
        twice = next(task_id for task_id in ids if ids.count(task_id) > 1)
        raise DataError(
            f"split {split!r} of {setup.environment.name} has two tasks {twice!r}; ids are unique"
        )
    return chosen


def collect(  # noqa: PLR0913 (the options of the command)
    setup: SearchSetup,
    tasks: Sequence[Task],
    store: TreeStore,
    *,
    concurrency: int | Literal["auto"] = "auto",
    limits: RunLimits | None = None,
    retry_failed: bool = False,
    executor: Executor | None = None,
    logger: RunLogger | None = None,
) -> Summary:
    """Search every task that the store does not hold finished yet, then close the policy.

    Args:
        setup: The world, the policy and how to search.
        tasks: What to search.
        store: Where the trees go; made now or by an earlier run with the same settings.
        concurrency: Trees in flight; ``auto`` takes as many as keep the policy's batch full.
        limits: What the run and each of its trees may cost, and how long to wait.
        retry_failed: Go on with trees that ended as failed; otherwise they stay as they are.
        executor: Where searches run; in this process if not given.
        logger: Gets the numbers while the search goes on; its failures are warnings.

    Raises:
        ClusterFailure: The executor's cluster is lost; everything finished so far is in the store.
        KeyboardInterrupt: SIGINT or SIGTERM came; everything finished so far is in the store.
        PolicyFailure: The policy answers nobody; everything finished so far is in the store.
        StoreError: The store is in use, damaged, full or was made with other settings.
        ConfigError: ``concurrency`` is below 1, or there is no task.
    """
    if concurrency != "auto" and concurrency < 1:
        raise ConfigError(f"concurrency must be >= 1 or 'auto', got {concurrency}")
    if not tasks:
        raise ConfigError("no task to search; give at least one")
    limits = limits or RunLimits()
    executor = executor or LocalExecutor()
    settings = setup.manifest()
    files = [store.folder / SUMMARY_FILE, store.folder / MANIFEST_FILE]
    held = store.open(settings)
    with held, executor.running(setup, limits.sequences_in_flight) as searches:
        meter = ProgressMeter(num_trees=len(tasks), max_iterations=setup.search.num_iterations)
        run = Run(
            searches=searches,
            store=store,
            waiting=deque(tasks),
            meter=meter,
            display=ProgressDisplay(meter),
            budget=limits.budget,
            outage=Outage(patience_s=limits.outage_patience_s),
            retry_failed=retry_failed,
            extend_budget=limits.extend_budget,
        )
        with tracked(_make_tracker(run, logger, settings), files):
            try:
                with run.display.live():
                    asyncio.run(_work(run, None if concurrency == "auto" else concurrency))
            except (KeyboardInterrupt, PolicyFailure, ClusterFailure):
                _write_summary(run)
                raise
            return _write_summary(run)


async def _work(run: Run, concurrency: int | None) -> None:
    """Run the workers until no task waits, or until a signal comes; then close the searches."""
    work = asyncio.ensure_future(work_all(run, concurrency))
    with _signals_cancel(work) as caught:
        try:
            await work
        except asyncio.CancelledError:
            if not caught:
                raise
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(run.searches.close(), CLOSE_LIMIT_S)
            run.display.refresh(last=True)
    if caught:
        raise KeyboardInterrupt


@contextmanager
def _signals_cancel(work: "asyncio.Future[None]") -> Iterator[list[int]]:
    """Let SIGINT and SIGTERM cancel the work; a second one acts as usual."""
    loop = asyncio.get_running_loop()
    caught: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)

    def stop(number: int) -> None:
        caught.append(number)
        for each in numbers:
            loop.remove_signal_handler(each)
        work.cancel()

    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        yield caught
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _make_tracker(
    run: Run, logger: RunLogger | None, settings: Mapping[str, Any]
) -> Tracker | None:
    """Return what logs a run, earlier trees included; None without a logger."""
    if logger is None:
        return None
    earlier, before = _count_others(run), _read_summary(run)

    def snapshot() -> dict[str, float]:
        summary = _summarize(run, earlier | run.counts, before)
        return collection_metrics(summary, run.meter.num_trees, run.budget)

    return Tracker(logger, run.store.folder, settings, snapshot)


def _write_summary(run: Run) -> Summary:
    """Count what the store holds now and write it down."""
    summary = _summarize(run, run.counts | _count_others(run), _read_summary(run))
    run.store.write_summary(summary.to_dict())
    return summary


def _read_summary(run: Run) -> dict[str, Any]:
    """Return what earlier runs wrote down."""
    path = run.store.folder / SUMMARY_FILE
    before: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return before


def _count_others(run: Run) -> dict[str, TreeCounts]:
    """Return the numbers of the trees that this run has not seen, read from the disk."""
    return {stored.header.tree_id: count_tree(stored) for stored in run.store.trees(but=run.counts)}


def _summarize(run: Run, counts: Mapping[str, TreeCounts], before: Mapping[str, Any]) -> Summary:
    """Add up trees, and the times of this run and of earlier ones."""
    seconds = run.meter.seconds
    return summarize(
        [counts[tree_id] for tree_id in sorted(counts)],
        run.not_started,
        stopped_by=run.stopped_by,
        handed_out_again=run.searches.handed_out_again,
        torn_lines=before.get("torn_lines", 0) + run.torn_lines,
        seconds=before.get("seconds", 0.0) + seconds,
        run_seconds=seconds,
        run_tokens_per_second=run.meter.generated_tokens / seconds,
    )

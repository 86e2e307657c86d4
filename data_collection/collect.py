"""Searches many tasks at once in one event loop, so that the policy's batch stays full."""

import asyncio
import json
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from data_collection.iterations import Iteration, TreeEnd
from data_collection.progress import ProgressDisplay, ProgressMeter
from data_collection.search import TreeSearch, search_tree
from data_collection.setup import SearchSetup
from data_collection.store import TreeStore
from data_collection.summary import Summary, best_reward, summarize
from data_collection.tree_file import StoredTree
from lit_qagent.core.errors import ConfigError, DataError, EnvironmentFailure
from lit_qagent.core.manifest import write_json
from lit_qagent.core.records import SUCCESS_REWARD, Task

SUMMARY_FILE = "summary.json"
_CLOSE_LIMIT_S = 5.0


@dataclass(kw_only=True)
class _Run:
    """What the workers of one run share."""

    setup: SearchSetup
    store: TreeStore
    waiting: deque[Task]
    meter: ProgressMeter
    display: ProgressDisplay
    retry_failed: bool
    torn_lines: int = 0
    not_started: list[str] = field(default_factory=list)


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


def collect(
    setup: SearchSetup,
    tasks: Sequence[Task],
    store: TreeStore,
    *,
    concurrency: int,
    retry_failed: bool = False,
) -> Summary:
    """Search every task that the store does not hold finished yet, then close the policy.

    Args:
        setup: The world, the policy and how to search.
        tasks: What to search.
        store: Where the trees go; made now or by an earlier run with the same settings.
        concurrency: Trees in flight.
        retry_failed: Go on with trees that ended as failed; otherwise they stay as they are.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM came; everything finished so far is in the store.
        StoreError: The store is in use, damaged or was made with other settings.
        ConfigError: ``concurrency`` is below 1, or there is no task.
    """
    if concurrency < 1:
        raise ConfigError(f"concurrency must be >= 1, got {concurrency}")
    if not tasks:
        raise ConfigError("no task to search; give at least one")
    meter = ProgressMeter(num_trees=len(tasks), max_iterations=setup.search.num_iterations)
    run = _Run(
        setup=setup,
        store=store,
        waiting=deque(tasks),
        meter=meter,
        display=ProgressDisplay(meter),
        retry_failed=retry_failed,
    )
    with store.open(setup.manifest()):
        try:
            with run.display.live():
                asyncio.run(_work_all(run, concurrency))
        except KeyboardInterrupt:
            _write_summary(run)
            raise
        return _write_summary(run)


async def _work_all(run: _Run, concurrency: int) -> None:
    """Run the workers until no task waits, or until a signal comes."""
    workers = [asyncio.create_task(_work(run)) for _ in range(min(concurrency, len(run.waiting)))]
    with _signals_cancel(workers) as caught:
        try:
            await asyncio.gather(*workers)
        except asyncio.CancelledError:
            if not caught:
                raise
        finally:
            for worker in workers:
                worker.cancel()
            # A policy that hangs must not hold up the end of the program.
            await asyncio.wait(workers, timeout=_CLOSE_LIMIT_S)
            with suppress(TimeoutError):
                await asyncio.wait_for(run.setup.policy.close(), _CLOSE_LIMIT_S)
            run.display.refresh(last=True)
    if caught:
        raise KeyboardInterrupt


@contextmanager
def _signals_cancel(workers: Sequence["asyncio.Task[None]"]) -> Iterator[list[int]]:
    """Let SIGINT and SIGTERM cancel the workers; a second one acts as usual."""
    loop = asyncio.get_running_loop()
    caught: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)

    def stop(number: int) -> None:
        caught.append(number)
        for each in numbers:
            loop.remove_signal_handler(each)
        for worker in workers:
            worker.cancel()

    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        yield caught
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _work(run: _Run) -> None:
    """Take tasks, one after the other, until none waits."""
    while run.waiting:
        task = run.waiting.popleft()
        try:
            search = TreeSearch(run.setup, task)
        except EnvironmentFailure as error:
            run.not_started.append(f"{type(error).__name__}: {error}")
            run.meter.done += 1
            run.meter.failures += 1
            continue
        stored = run.store.resume(search.header)
        if stored is not None and _is_done(stored, retry_failed=run.retry_failed):
            _count_done(run, stored)
        else:
            await _search(run, search, stored)
        run.display.refresh()
        await asyncio.sleep(0)


async def _search(run: _Run, search: TreeSearch, stored: StoredTree | None) -> None:
    """Search one tree from where it stands to its end, writing every iteration down."""
    num_done_before = 0
    if stored is None:
        run.store.start(search.header)
    else:
        search.restore(stored.iterations)
        num_done_before = search.num_iterations
        run.torn_lines += stored.is_torn
    meter, tree_id = run.meter, search.header.tree_id
    meter.nodes += len(search.tree.nodes)

    def record(iteration: Iteration) -> None:
        run.store.append_iteration(tree_id, iteration)
        meter.count(iteration)
        run.display.refresh()

    end = await search_tree(search, record)
    run.store.append_end(tree_id, end)
    meter.open_iterations -= end.num_iterations - num_done_before
    _count_end(run, end, is_success=search.has_success)


def _is_done(stored: StoredTree, *, retry_failed: bool) -> bool:
    return stored.end is not None and not (retry_failed and stored.end.reason == "failed")


def _count_done(run: _Run, stored: StoredTree) -> None:
    """Count a tree that an earlier run has finished."""
    assert stored.end is not None
    run.meter.resumed += 1
    run.meter.nodes += len(stored.tree.nodes)
    _count_end(run, stored.end, is_success=(best_reward(stored) or 0.0) >= SUCCESS_REWARD)


def _count_end(run: _Run, end: TreeEnd, *, is_success: bool) -> None:
    run.meter.done += 1
    run.meter.successes += is_success
    run.meter.failures += end.reason == "failed"


def _write_summary(run: _Run) -> Summary:
    """Count what the store holds now and write it down."""
    path = run.store.folder / SUMMARY_FILE
    before: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    seconds = run.meter.seconds
    summary = summarize(
        run.store.trees(),
        run.not_started,
        torn_lines=before.get("torn_lines", 0) + run.torn_lines,
        seconds=before.get("seconds", 0.0) + seconds,
        run_seconds=seconds,
        run_tokens_per_second=run.meter.generated_tokens / seconds,
    )
    write_json(path, summary.to_dict())
    return summary

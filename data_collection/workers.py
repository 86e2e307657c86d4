"""The workers of a run: each searches one tree after the other, writing every iteration down."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from data_collection.budget import Budget
from data_collection.crew import Crew
from data_collection.executors.base import Searches
from data_collection.growing_tree import GrowingTree
from data_collection.iterations import Cost, Iteration, TreeEnd
from data_collection.outage import Outage
from data_collection.progress import ProgressDisplay, ProgressMeter
from data_collection.search import failure_of
from data_collection.store import TreeStore
from data_collection.summary import TreeCounts, count_tree
from data_collection.tree_file import StoredTree
from lit_qagent.core.errors import EnvironmentFailure, PolicyFailure
from lit_qagent.core.records import Task

_TURN_S = 0.005
CLOSE_LIMIT_S = 5.0


@dataclass(kw_only=True)
class Run:
    """What the workers of one run share.

    Attributes:
        searches: Where trees are searched.
        store: Where the trees go.
        waiting: Tasks nobody has taken yet.
        meter: Counts of the run.
        display: Shows them.
        budget: What it may cost.
        outage: What is known of the policy's health.
        retry_failed: Go on with trees that failed.
        extend_budget: Go on with trees that a budget ended.
        counts: Numbers of the trees seen in this run, by tree id.
        not_started: Tasks that could not start, and why.
        torn_lines: Half-written iterations that were cut.
        cost: What this run has cost.
        stopped_by: The limit of the run that was reached; None if there was room.
        suspects: Trees given up after waiting for the policy; they failed if it answers again.
        next_turn: When the worker at work has to let the others go on.
    """

    searches: Searches
    store: TreeStore
    waiting: deque[Task]
    meter: ProgressMeter
    display: ProgressDisplay
    budget: Budget
    outage: Outage
    retry_failed: bool = False
    extend_budget: bool = False
    counts: dict[str, TreeCounts] = field(default_factory=dict)
    not_started: dict[str, str] = field(default_factory=dict)
    torn_lines: int = 0
    cost: Cost = field(default_factory=Cost)
    stopped_by: str | None = None
    suspects: list[tuple[str, TreeEnd]] = field(default_factory=list)
    next_turn: float = 0.0

    @property
    def has_work(self) -> bool:
        """True while a task waits and nothing has stopped the run."""
        return bool(self.waiting) and self.stopped_by is None

    def is_done(self, stored: StoredTree) -> bool:
        """Return whether nothing is left to do for a stored tree."""
        if stored.end is None:
            return False
        goes_on: Mapping[str, bool] = {"failed": self.retry_failed, "budget": self.extend_budget}
        return not goes_on.get(stored.end.reason, False)

    async def give_turn(self) -> None:
        """Let other trees and Ctrl-C have a turn; a policy that answers at once never does.

        A turn after each iteration would cost a tenth of the search.
        """
        now = time.monotonic()
        if now >= self.next_turn:
            self.next_turn = now + _TURN_S
            await asyncio.sleep(0)

    def finish(self, tree_id: str, end: TreeEnd) -> None:
        """Write down how a tree ended."""
        self.store.append_end(tree_id, end)
        self.counts[tree_id].end = end
        self.meter.finish(end, is_success=self.counts[tree_id].is_success)

    def settle_suspects(self) -> None:
        """Write down that trees failed, now that it is known not to be the policy."""
        for tree_id, end in self.suspects:
            self.finish(tree_id, end)
        self.suspects.clear()


async def work_all(run: Run, concurrency: int | None) -> None:
    """Search all waiting tasks, with a number of workers or with as many as keep the batch full."""
    crew = run.searches.crew(concurrency)
    tasks: set[asyncio.Task[None]] = set()
    try:
        while run.has_work or tasks:
            num_waiting = len(run.waiting) if run.has_work else 0
            for _ in range(crew.wanted(num_waiting, len(tasks))):
                tasks.add(asyncio.create_task(_work(run, crew)))
            done, tasks = await asyncio.wait(
                tasks, timeout=crew.look_every_s, return_when=asyncio.FIRST_COMPLETED
            )
            errors = [error for task in done if (error := task.exception()) is not None]
            if errors:
                raise errors[0]  # the others mean the same, or come again
        run.settle_suspects()
    finally:
        await _cancel(tasks)


async def _cancel(tasks: Sequence["asyncio.Task[None]"] | set["asyncio.Task[None]"]) -> None:
    """Cancel workers and let them end."""
    for task in tasks:
        task.cancel()
    if tasks:
        # A policy that hangs must not hold up the end of the program.
        done, _ = await asyncio.wait(tasks, timeout=CLOSE_LIMIT_S)
        await asyncio.gather(*done, return_exceptions=True)


async def _work(run: Run, crew: Crew) -> None:
    """Take tasks, one after the other, until none waits or the crew is too large."""
    while run.has_work:
        task = run.waiting.popleft()
        try:
            search = await run.searches.open(task)
        except EnvironmentFailure as error:
            run.not_started[task.task_id] = f"{type(error).__name__}: {error}"
            run.meter.fail_to_start()
            continue
        stored = run.store.resume(search.header)
        if stored is not None and run.is_done(stored):
            run.counts[search.header.tree_id] = count_tree(stored)
            assert stored.end is not None
            is_success = run.counts[search.header.tree_id].is_success
            run.meter.resume_done(stored.end, is_success=is_success)
            await search.close()
        else:
            await _search(run, search, stored)
        run.display.refresh()
        await asyncio.sleep(0)
        if crew.may_leave():
            return


async def _search(run: Run, search: GrowingTree, stored: StoredTree | None) -> None:
    """Search one tree from where it stands to its end, unless the run ends before."""
    tree_id = search.header.tree_id
    if stored is None:
        run.store.start(search.header)
        run.counts[tree_id] = TreeCounts()
    else:
        search.restore(stored.iterations)
        run.counts[tree_id] = count_tree(stored)
        run.counts[tree_id].end = None
        run.torn_lines += stored.is_torn
    run.meter.nodes += len(search.tree.nodes)
    num_done_before = search.num_iterations
    try:
        end = await _grow(run, search)
    finally:
        await search.close()
        run.store.let_go(tree_id)
    run.meter.open_iterations -= search.num_iterations - num_done_before
    if end is not None:
        run.finish(tree_id, end)


async def _grow(run: Run, search: GrowingTree) -> TreeEnd | None:
    """Iterate until the tree is done; None if the run ends before, or nobody knows what failed."""
    started = time.monotonic()
    tries, mark = 0, None
    while run.stopped_by is None:
        reason = search.end_reason
        if reason is None and _is_spent(run.budget, search, time.monotonic() - started):
            reason = "budget"
        if reason is not None:
            return search.end(reason)
        try:
            iteration = await search.iterate()
        except (PolicyFailure, EnvironmentFailure) as error:
            next_mark = await run.outage.waits(error, search.header.tree_id, mark, tries)
            if next_mark is not None:
                mark, tries = next_mark, tries + 1
                continue
            end = search.end("failed", failure_of(error, search))
            if run.outage.is_of_tree(error, mark):
                return end
            run.suspects.append((search.header.tree_id, end))
            return None
        tries, mark = 0, None
        _record(run, search.header.tree_id, iteration)
        await run.give_turn()
    return None


def _record(run: Run, tree_id: str, iteration: Iteration) -> None:
    """Write one iteration down and count it."""
    run.store.append_iteration(tree_id, iteration)
    run.outage.succeeded()
    if run.suspects:
        run.settle_suspects()
    run.counts[tree_id].add(iteration)
    run.cost += iteration.cost
    run.meter.count(iteration)
    run.display.refresh()
    # What other trees have in flight by then is paid for, and is kept as well.
    run.stopped_by = run.stopped_by or run.budget.reached(
        run.budget.run, run.cost, iterations=run.meter.iterations, seconds=run.meter.seconds
    )


def _is_spent(budget: Budget, search: GrowingTree, seconds: float) -> bool:
    reached = budget.reached(
        budget.tree, search.cost, iterations=search.num_iterations, seconds=seconds
    )
    return reached is not None

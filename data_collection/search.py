"""MCTS on one task (METHOD: select, expand, evaluate, back up), some iterations at a time.

Every leaf that can still be expanded keeps its own branch of the world, forked from its parent's;
a branch is let go once its node is expanded. A search that goes on from stored iterations has no
branches yet: each is rebuilt when needed, by replaying the actions that lead to its node.

With several leaves in flight iterations end in the order in which they began, whatever came first:
the leaf of iteration i is selected when exactly the first i + 1 - ``leaves_in_flight`` are in the
tree, so the tree does not depend on the clock, and going on from a part gives the same tree.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from data_collection.asking import Asking
from data_collection.expansion import EXPANSIONS
from data_collection.growing_tree import GrowingTree
from data_collection.iterations import Cost, Failure, Iteration, TreeHeader
from data_collection.setup import SearchSetup
from data_collection.tree import ROOT
from data_collection.tree_file import tree_id_of
from data_collection.uct import Descent, Pending
from data_collection.variants import VARIANTS, Evaluation, Expanded
from data_collection.world import Branch, act_all, in_time
from lit_qagent.agents.prompts import start_history
from lit_qagent.core.errors import EnvironmentFailure, StoreError
from lit_qagent.core.records import History, Message, Step, Task
from lit_qagent.environments.base import Environment

_REFLECTIONS_SHOWN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """What an iteration brought, before it is in the tree."""

    children: Sequence[Branch] = ()
    evaluation: Evaluation = field(default_factory=Evaluation)
    cost: Cost = field(default_factory=Cost)


@dataclass(kw_only=True, slots=True)
class _Flight:
    """An iteration under way.

    Attributes:
        number: Its number.
        selected: The leaf.
        reflections: What the tree had learnt when the leaf was selected.
        task: Its work, if it runs beside others.
    """

    number: int
    selected: int
    reflections: tuple[str, ...]
    task: "asyncio.Task[_Found] | None" = None


class TreeSearch(GrowingTree):
    """The search of one task's tree.

    Attributes:
        spent: What all answers given here have cost, also for iterations that failed, were tried
            again or were given up; `cost` holds those in the tree. Work under way is counted when
            it ends, at the latest when the search is closed.

    Args:
        setup: What all trees share.
        task: The task to search.

    Raises:
        EnvironmentFailure: The world cannot start the task.
    """

    def __init__(self, setup: SearchSetup, task: Task) -> None:
        spec = setup.search
        super().__init__(spec)
        self.setup = setup
        self.spent = Cost()
        self._task_id = task.task_id
        self._variant = VARIANTS[spec.variant](spec, setup.scorer, setup.step_timeout_s)
        self._expand_by = EXPANSIONS[spec.expansion]
        self._descent = Descent(
            selection=self._variant.selection,
            eta=spec.eta,
            prior_weight=spec.prior_weight,
            revisit_ends=spec.revisit_ends,
        )
        self._pending = Pending()
        self._flights: deque[_Flight] = deque()
        self._reflections: tuple[str, ...] = ()
        self._root = setup.environment.fork()
        observation = in_time(
            lambda: self._root.reset(task),
            setup.step_timeout_s,
            f"{self._root.name}: starting task {task.task_id!r}",
        )
        self._branches: dict[int, Environment] = {ROOT: self._root}
        self.header = TreeHeader(
            tree_id=tree_id_of(task.task_id),
            task_id=task.task_id,
            split=task.split,
            seed=setup.seed,
            head=start_history(self._root, setup.prompt).head,
            first_observation=observation.text,
        )

    def restore(self, iterations: Sequence[Iteration]) -> None:
        """See `GrowingTree.restore`."""
        for iteration in iterations:
            self._select_leaves()
            flight = self._flights[0] if self._flights else None
            if flight is None or flight.selected != iteration.selected:
                raise StoreError(
                    f"iteration {iteration.number} of the stored tree {self.header.tree_id!r} "
                    f"expanded node {iteration.selected}, this search would expand "
                    f"{flight.selected if flight else 'nothing'}; the tree was changed, or made "
                    "by another version: collect into another --store"
                )
            self._commit(iteration)

    async def iterate(self) -> Iteration:
        """See `GrowingTree.iterate`."""
        self._select_leaves()
        flight = self._flights[0]
        if self.setup.search.leaves_in_flight == 1:
            found = await self._work(flight)
        else:
            for each in self._flights:
                each.task = each.task or asyncio.ensure_future(self._work(each))
            assert flight.task is not None
            try:
                found = await flight.task
            except Exception:
                flight.task = None  # so that it can be tried again
                raise
        iteration = self._record(flight, found)
        self._keep_branches(found, len(self.tree.nodes))
        self._commit(iteration)
        return iteration

    async def close(self) -> None:
        """Give up the iterations under way."""
        tasks = [flight.task for flight in self._flights if flight.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for flight in self._flights:
            flight.task = None

    def _select_leaves(self) -> None:
        """Select leaves until as many are in flight as may be."""
        spec = self.setup.search
        while len(self._flights) < spec.leaves_in_flight:
            number = self.num_iterations + len(self._flights)
            if number >= max(spec.num_iterations, self.num_iterations + 1):
                return
            selected = self._descent.select(self.tree, self._pending)
            if selected is None:
                return
            self._flights.append(
                _Flight(number=number, selected=selected, reflections=self._reflections)
            )
            if spec.leaves_in_flight > 1:
                self._pending.add(self.tree, selected)

    async def _work(self, flight: _Flight) -> _Found:
        """Expand a leaf and evaluate one of its children; an end is its own evaluation."""
        selected = flight.selected
        leaf = self.tree[selected].step
        if leaf is not None and leaf.is_last:
            return _Found()
        asking = self._asking(flight)
        try:
            return await self._expand(selected, asking)
        finally:
            self.spent += asking.cost

    def _asking(self, flight: _Flight) -> Asking:
        """Return who asks on behalf of an iteration, with nothing asked yet."""
        setup = self.setup
        return Asking(
            policy=setup.policy,
            critic=setup.critic or setup.policy,
            prompt=setup.prompt,
            sampling=setup.sampling,
            seed=setup.seed,
            task_id=self._task_id,
            iteration=flight.number,
            notes=flight.reflections,
        )

    async def _expand(self, selected: int, asking: Asking) -> _Found:
        """Expand a leaf that is no end and evaluate one of its children."""
        setup = self.setup
        above = self._branch_of(selected)
        history = self._history(selected)
        candidates = await self._expand_by(
            asking, history, above.observation, setup.search.num_candidates
        )
        timeout_s = setup.step_timeout_s
        children = await act_all(above, list(candidates), timeout_s)
        evaluation = await self._variant.evaluate(
            asking, Expanded(history=history, children=children, candidates=candidates)
        )
        return _Found(children=children, evaluation=evaluation, cost=asking.cost)

    def _record(self, flight: _Flight, found: _Found) -> Iteration:
        """Return the iteration as it goes into the tree and the store."""
        evaluation = found.evaluation
        if found.children:
            evaluated = len(self.tree.nodes) + evaluation.offset
            first = found.children[evaluation.offset].step
        else:
            evaluated = flight.selected
            step = self.tree[flight.selected].step
            assert step is not None  # the root is no end
            first = step
        end = evaluation.rollout[-1] if evaluation.rollout else first
        value = evaluation.value
        return Iteration(
            number=flight.number,
            selected=flight.selected,
            children=tuple([child.step for child in found.children]),
            evaluated=evaluated,
            rollout=evaluation.rollout,
            reward=self.tree.outcome(end) if value is None else value,
            cost=found.cost,
            priors=evaluation.priors,
            reflection=evaluation.reflection,
        )

    def _keep_branches(self, found: _Found, first_index: int) -> None:
        for index, child in enumerate(found.children, start=first_index):
            if not child.step.is_last:
                self._branches[index] = child.environment

    def _commit(self, iteration: Iteration) -> None:
        """Put the oldest iteration under way into the tree."""
        selected = self._flights.popleft().selected
        if self.setup.search.leaves_in_flight > 1:
            self._pending.remove(self.tree, selected)
        self._branches.pop(selected, None)
        self._grow(iteration)
        if iteration.reflection:
            self._reflections = (*self._reflections, iteration.reflection)[-_REFLECTIONS_SHOWN:]

    def _history(self, index: int) -> History:
        """Return the chat up to a node."""
        turns: list[Message] = []
        for step in self.tree.steps(index):
            turns.append(Message(role="assistant", content=step.action))
            turns.append(Message(role="user", content=step.observation.text))
        return History(head=self.header.head, turns=tuple(turns))

    def _branch_of(self, index: int) -> Environment:
        """Return a node's branch of the world, replayed from the root if there is none yet."""
        if index not in self._branches:
            steps = self.tree.steps(index)
            timeout_s = self.setup.step_timeout_s
            self._branches[index] = in_time(
                lambda: self._replay(steps),
                None if timeout_s is None else timeout_s * max(len(steps), 1),
                f"{self._root.name}: replaying {len(steps)} steps of task {self._task_id!r}",
            )
        return self._branches[index]

    def _replay(self, steps: Sequence[Step]) -> Environment:
        branch = self._root.fork()
        for step in steps:
            now = branch.step(step.action).observation.text
            if now != step.observation.text:
                raise EnvironmentFailure(
                    f"{branch.name}: replaying {step.action[:80]!r} of task {self._task_id!r} gave "
                    f"{now[:80]!r}, recorded was {step.observation.text[:80]!r}; the world is not "
                    "deterministic or has changed, so this tree cannot be continued"
                )
        return branch


def failure_of(error: Exception, search: GrowingTree) -> Failure:
    """Return the record of why a search could not go on."""
    return Failure(error=type(error).__name__, message=str(error), iteration=search.num_iterations)

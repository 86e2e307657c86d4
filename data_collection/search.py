"""MCTS on one task (METHOD: select, expand, evaluate, back up), one iteration at a time.

Every leaf that can still be expanded keeps its own branch of the world, forked from its parent's;
a branch is let go once its node is expanded. A search that goes on from stored iterations has no
branches yet: each is rebuilt when needed, by replaying the actions that lead to its node.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from data_collection.iterations import (
    Cost,
    EndReason,
    Failure,
    Iteration,
    TreeEnd,
    TreeHeader,
    apply_iteration,
)
from data_collection.setup import SearchSetup
from data_collection.tree import ROOT, SearchTree
from data_collection.tree_file import tree_id_of
from data_collection.uct import select
from lit_qagent.agents.guided import Proposals, propose_actions
from lit_qagent.agents.prompts import action_constraint, extend_history, start_history
from lit_qagent.core.actions import canonical_action
from lit_qagent.core.errors import EnvironmentFailure, PolicyFailure
from lit_qagent.core.records import History, Observation, Step, Task
from lit_qagent.core.seeds import derive_seed
from lit_qagent.environments.base import Environment


class _Branch(NamedTuple):
    """A child before it is in the tree: its step and its own branch of the world."""

    step: Step
    environment: Environment


class TreeSearch:
    """The search of one task's tree.

    Attributes:
        header: What the tree starts from.
        tree: The tree so far.
        num_iterations: Iterations done.
        has_success: True once a node or the end of a rollout earned the full reward.

    Args:
        setup: What all trees share.
        task: The task to search.

    Raises:
        EnvironmentFailure: The world cannot start the task.
    """

    def __init__(self, setup: SearchSetup, task: Task) -> None:
        self.setup = setup
        self.tree = SearchTree(truncation_reward=setup.search.truncation_reward)
        self.num_iterations = 0
        self._task_id = task.task_id
        self.has_success = False
        self._root = setup.environment.fork()
        observation = self._root.reset(task)
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
        """Grow the tree of a fresh search from stored iterations, to go on from there."""
        for iteration in iterations:
            self._apply(iteration)

    @property
    def end_reason(self) -> EndReason | None:
        """Why the search is over, or None if it can go on."""
        spec = self.setup.search
        if spec.stop_at_success and self.has_success:
            return "success"
        if self.tree[ROOT].is_exhausted and not spec.revisit_ends:
            return "exhausted"
        return "iterations" if self.num_iterations >= spec.num_iterations else None

    def end(self, reason: EndReason, failure: Failure | None = None) -> TreeEnd:
        """Return the record that closes the tree."""
        return TreeEnd(
            reason=reason,
            num_iterations=self.num_iterations,
            num_nodes=len(self.tree.nodes),
            failure=failure,
        )

    async def iterate(self) -> Iteration:
        """Do one iteration; the tree changes only if all of it succeeds.

        Raises:
            PolicyFailure: The policy gave no answer.
            EnvironmentFailure: The world broke, or did not replay as recorded.
        """
        spec = self.setup.search
        selected = select(self.tree, eta=spec.eta, revisit_ends=spec.revisit_ends)
        leaf = self.tree[selected].step
        if leaf is not None and leaf.is_last:
            iteration = Iteration(
                number=self.num_iterations,
                selected=selected,
                children=(),
                evaluated=selected,
                rollout=(),
                reward=self.tree.outcome(leaf),
            )
        else:
            iteration = await self._expand_and_evaluate(selected)
        self._apply(iteration)
        return iteration

    async def _expand_and_evaluate(self, selected: int) -> Iteration:
        """Give a leaf its children and evaluate the first of them."""
        children, cost = await self._expand(selected)
        first_index = len(self.tree.nodes)
        rollout, rollout_cost = await self._roll_out(selected, children[0])
        end = rollout[-1] if rollout else children[0].step
        for offset, child in enumerate(children):
            if not child.step.is_last:
                self._branches[first_index + offset] = child.environment
        self._branches.pop(selected, None)
        return Iteration(
            number=self.num_iterations,
            selected=selected,
            children=tuple(child.step for child in children),
            evaluated=first_index,
            rollout=rollout,
            reward=self.tree.outcome(end),
            cost=cost + rollout_cost,
        )

    async def _expand(self, selected: int) -> tuple[list[_Branch], Cost]:
        """Sample actions after a node; equal ones are one child, each acts in its own fork."""
        above = self._branch_of(selected)
        proposed = await self._propose(
            self._history(selected), above, self.setup.search.num_candidates, "expand", 0
        )
        distinct: dict[str, str] = {}
        for proposal in proposed.proposals:
            distinct.setdefault(canonical_action(proposal.text), proposal.text)
        children = (_act(above.fork(), text) for text in distinct.values())
        return list(await asyncio.gather(*children)), _cost_of(proposed)

    async def _roll_out(self, selected: int, child: _Branch) -> tuple[tuple[Step, ...], Cost]:
        """Let the policy play from a child to the end of the episode."""
        branch = child.environment.fork()
        history = extend_history(self._history(selected), child.step)
        steps: list[Step] = []
        cost = Cost()
        while not branch.is_over:
            proposed = await self._propose(history, branch, 1, "rollout", len(steps))
            steps.append((await _act(branch, proposed.proposals[0].text)).step)
            history = extend_history(history, steps[-1])
            cost += _cost_of(proposed)
        return tuple(steps), cost

    async def _propose(
        self, history: History, branch: Environment, n: int, purpose: str, step: int
    ) -> Proposals:
        setup = self.setup
        proposed = await propose_actions(
            setup.policy,
            history,
            n,
            setup.sampling,
            constraint=action_constraint(branch.observation, setup.prompt),
            seed=derive_seed(setup.seed, self._task_id, self.num_iterations, purpose, step),
        )
        if not proposed.proposals:
            raise PolicyFailure(
                f"{type(setup.policy).__name__} returned no action for {n} asked; "
                "a policy answers with at least one or raises PolicyFailure"
            )
        return proposed

    def _history(self, index: int) -> History:
        """Return the chat up to a node."""
        history = History(head=self.header.head)
        for step in self.tree.steps(index):
            history = extend_history(history, step)
        return history

    def _branch_of(self, index: int) -> Environment:
        """Return a node's branch of the world, replayed from the root if there is none yet."""
        if index not in self._branches:
            self._branches[index] = self._replay(self.tree.steps(index))
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

    def _apply(self, iteration: Iteration) -> None:
        apply_iteration(self.tree, iteration)
        self.num_iterations += 1
        self.has_success = self.has_success or iteration.is_success


async def search_tree(search: TreeSearch, record: Callable[[Iteration], None]) -> TreeEnd:
    """Search until the tree is done; a failure of the policy or the world ends it as ``failed``.

    Args:
        search: The search, fresh or to be continued.
        record: Called once per iteration, as soon as it is done.
    """
    while (reason := search.end_reason) is None:
        try:
            iteration = await search.iterate()
        except (PolicyFailure, EnvironmentFailure) as error:
            failure = Failure(
                error=type(error).__name__, message=str(error), iteration=search.num_iterations
            )
            return search.end("failed", failure)
        record(iteration)
        # A policy that answers at once never suspends; the other trees and Ctrl-C get their turn.
        await asyncio.sleep(0)
    return search.end(reason)


async def _act(branch: Environment, action: str) -> _Branch:
    """Step a branch; of the observation only the text is kept, as in the store."""
    step = await branch.act(action)
    kept = replace(step, observation=Observation(text=step.observation.text))
    return _Branch(step=kept, environment=branch)


def _cost_of(proposed: Proposals) -> Cost:
    """Count what the proposals of one decision have cost."""
    answers = proposed.proposals
    return Cost(
        requests=proposed.requests,
        prompt_tokens=proposed.prompt_tokens,
        generated_tokens=proposed.generated_tokens,
        dropped_steps=proposed.dropped_steps,
        cut_actions=sum(answer.finish_reason == "length" for answer in answers),
    )

"""What several leaves in flight (WU-UCT) do to the search: quality in the toy world, and time.

Quality is how well the search orders siblings by value, judged by the optimal Q values, which the
toy world knows in closed form; and how many of 200 trees find the full reward, with the standard
error of that share. It does not depend on the clock. Time is that of a policy that answers after
5 ms, for 20 trees, one at a time.

    python benchmarks/bench_leaves_in_flight.py [--json PATH]
"""

import argparse
import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import Any

from rows import add_json_option, show

from data_collection.search import TreeSearch
from data_collection.setup import SearchSetup
from data_collection.spec import SearchSpec
from data_collection.tree import SearchTree
from lit_qagent.agents.prompts import PromptSpec
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling, Task
from lit_qagent.environments.splits import SplitSizes
from lit_qagent.environments.toy import ToyWorld
from lit_qagent.policies.scripted import ScriptedPolicy

NUM_TASKS = 200
NUM_TIMED = 20
NUM_ITERATIONS = 64
DELAY_S = 0.005


class SlowPolicy(ScriptedPolicy):
    """Draws among the legal actions, after a while."""

    def __init__(self, delay_s: float) -> None:
        super().__init__("uniform")
        self.delay_s = delay_s

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        await asyncio.sleep(self.delay_s)
        return await super().propose(messages, n, sampling, constraint=constraint, seed=seed)


def search_all(leaves: int) -> dict[str, Any]:
    """Search every task with a number of leaves in flight, and some of them with a slow policy."""
    world = ToyWorld(
        depth=4, num_actions=5, max_steps=5, splits=SplitSizes(train=NUM_TASKS, valid=1, test=1)
    )
    tasks = world.tasks("train")
    searches = [TreeSearch(_setup(world, leaves, 0.0), task) for task in tasks]
    asyncio.run(_search_one_by_one(searches))
    orders = [
        is_right
        for task, search in zip(tasks, searches, strict=True)
        for is_right in ordered(world, task, search.tree)
    ]
    success = sum(search.has_success for search in searches) / len(searches)
    timed = [TreeSearch(_setup(world, leaves, DELAY_S), task) for task in tasks[:NUM_TIMED]]
    begin = time.perf_counter()
    asyncio.run(_search_one_by_one(timed))
    return {
        "leaves_in_flight": leaves,
        "siblings_in_right_order": round(sum(orders) / len(orders), 3),
        "trees_with_success": round(success, 3),
        "standard_error": round((success * (1 - success) / len(searches)) ** 0.5, 3),
        "seconds_per_tree": round((time.perf_counter() - begin) / len(timed), 3),
    }


def _setup(world: ToyWorld, leaves: int, delay_s: float) -> SearchSetup:
    return SearchSetup(
        environment=world,
        policy=SlowPolicy(delay_s),
        search=SearchSpec(
            num_iterations=NUM_ITERATIONS, stop_at_success=False, leaves_in_flight=leaves
        ),
        prompt=PromptSpec(think=False, num_examples=0, constrain=True),
        sampling=Sampling(),
        seed=0,
    )


async def _search_one_by_one(searches: Sequence[TreeSearch]) -> None:
    for search in searches:
        while search.end_reason is None:
            await search.iterate()
        await search.close()


def ordered(world: ToyWorld, task: Task, tree: SearchTree) -> list[bool]:
    """Say for all pairs of siblings with unequal optimal values whether Q_hat orders them right."""
    branch = world.fork()
    branch.reset(task)
    right = []
    for node in tree.nodes:
        known = [child for child in node.children if tree.q_hat(child) is not None]
        for a, b in itertools.combinations(known, 2):
            best_a, best_b = (
                branch.optimal_q([step.action for step in tree.steps(child)]) for child in (a, b)
            )
            q_a, q_b = tree.q_hat(a) or 0.0, tree.q_hat(b) or 0.0
            if best_a != best_b:
                right.append((q_a - q_b) * (best_a - best_b) > 0)
    return right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_json_option(parser)
    options = parser.parse_args()
    show([search_all(leaves) for leaves in (1, 2, 4, 8, 16)], options.json)


if __name__ == "__main__":
    main()

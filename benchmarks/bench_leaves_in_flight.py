"""What several leaves in flight (WU-UCT) do to the search: quality in the toy world, and time.

Quality is how well the search orders siblings by value, judged by the optimal Q values, which the
toy world knows in closed form; and how many trees find the full reward. Time is that of a policy
that answers after 5 ms, one tree at a time.

    python benchmarks/bench_leaves_in_flight.py [--json PATH]
"""

import argparse
import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import Any

from rows import add_json_option, show

from data_collection.search import TreeSearch, search_tree
from data_collection.setup import SearchSetup
from data_collection.spec import SearchSpec
from data_collection.tree import SearchTree
from lit_qagent.agents.prompts import PromptSpec
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling, Task
from lit_qagent.environments.splits import SplitSizes
from lit_qagent.environments.toy import ToyWorld
from lit_qagent.policies.scripted import ScriptedPolicy

NUM_TASKS = 40
NUM_ITERATIONS = 64
DELAY_S = 0.005


class SlowPolicy(ScriptedPolicy):
    """Draws among the legal actions, after a while."""

    delay_s = DELAY_S

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
    """Search every task with a number of leaves in flight."""
    world = ToyWorld(
        depth=4, num_actions=5, max_steps=5, splits=SplitSizes(train=NUM_TASKS, valid=1, test=1)
    )
    setup = SearchSetup(
        environment=world,
        policy=SlowPolicy("uniform"),
        search=SearchSpec(
            num_iterations=NUM_ITERATIONS, stop_at_success=False, leaves_in_flight=leaves
        ),
        prompt=PromptSpec(think=False, num_examples=0, constrain=True),
        sampling=Sampling(),
        seed=0,
    )
    searches = [TreeSearch(setup, task) for task in world.tasks("train")]
    begin = time.perf_counter()
    asyncio.run(_search_one_by_one(searches))
    seconds = time.perf_counter() - begin
    orders = [
        is_right
        for task, search in zip(world.tasks("train"), searches, strict=True)
        for is_right in ordered(world, task, search.tree)
    ]
    return {
        "leaves_in_flight": leaves,
        "siblings_in_right_order": round(sum(orders) / len(orders), 3),
        "trees_with_success": round(sum(s.has_success for s in searches) / len(searches), 3),
        "seconds_per_tree": round(seconds / len(searches), 3),
    }


async def _search_one_by_one(searches: Sequence[TreeSearch]) -> None:
    for search in searches:
        await search_tree(search, lambda _: None)


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

"""Tree stores written by hand for the tests of the page."""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from data_collection.iterations import Cost, Failure, Iteration, TreeEnd, TreeHeader
from data_collection.store import TreeStore
from data_collection.tree_file import tree_id_of
from lit_qagent.core.records import Message, Observation, Step

SETTINGS = {
    "environment": {"name": "letters", "version": "1"},
    "prompt": {"version": "1"},
    "policy": {"name": "planned"},
    "search": {"num_iterations": 4, "num_candidates": 2, "truncation_reward": -1.0},
    "sampling": {},
    "seed": 0,
}
SCRIPT = "</script><script>window.planted = 1</script>"
IMAGE = '<img src="x" onerror="window.planted = 2">'
COMMENT = "<!--<script>&lt;b&gt;\u2028\u2029\ud800"


class Tree(NamedTuple):
    """One tree to write."""

    task: str
    iterations: Sequence[Iteration]
    end: TreeEnd | None
    instruction: str = "Spell."


def step(
    action: str, seen: str = "so far", reward: float | None = None, *, valid: bool = True
) -> Step:
    return Step(
        action=action,
        observation=Observation(text=seen),
        reward=reward or 0.0,
        terminated=reward is not None,
        valid=valid,
    )


def iteration(
    number: int, selected: int, children: Sequence[Step], evaluated: int, reward: float = 0.0
) -> Iteration:
    return Iteration(
        number=number,
        selected=selected,
        children=tuple(children),
        evaluated=evaluated,
        rollout=(),
        reward=reward,
        cost=Cost(requests=1, prompt_tokens=10, generated_tokens=2),
    )


def ended(reason: str, iterations: int, nodes: int, failure: Failure | None = None) -> TreeEnd:
    return TreeEnd(
        reason=reason,  # type: ignore[arg-type]  # tests name it by a string
        num_iterations=iterations,
        num_nodes=nodes,
        failure=failure,
    )


def write_store(folder: Path, trees: Iterable[Tree]) -> TreeStore:
    store = TreeStore(folder)
    with store.open(SETTINGS):
        for tree in trees:
            tree_id = tree_id_of(tree.task.replace("\ud800", "?"))
            store.start(
                TreeHeader(
                    tree_id=tree_id,
                    task_id=tree.task,
                    split="train",
                    seed=0,
                    head=(
                        Message(role="system", content=f"Rules. {SCRIPT}"),
                        Message(role="user", content=tree.instruction),
                    ),
                    first_observation=tree.instruction,
                )
            )
            for each in tree.iterations:
                store.append_iteration(tree_id, each)
            if tree.end is not None:
                store.append_end(tree_id, tree.end)
    return store


def small_tree(task: str = "small", instruction: str = "Spell.") -> Tree:
    """Two actions; below the first one an end with half the reward and an action of no effect."""
    first = (step("Thought: go.\nAction: go[a]", "at a"), step("go[b]", "at b"))
    second = (step("end[]", "over", 0.5), step("nonsense", "Invalid action.", valid=False))
    iterations = (iteration(0, 0, first, 1, 0.25), iteration(1, 1, second, 3, 0.5))
    return Tree(task, iterations, ended("iterations", 2, 5), instruction)


def planted_tree() -> Tree:
    """Markup and script in every text there is."""
    text = f"{SCRIPT}{IMAGE}{COMMENT}"
    children = (step(f"go[{text}]", f"seen {text}"), step(f"stop {text}", f"over {text}", 1.0))
    rolled = Iteration(
        number=0,
        selected=0,
        children=children,
        evaluated=1,
        rollout=(step(f"roll {text}", f"rolled {text}", 1.0),),
        reward=1.0,
        reflection=f"note {text}",
    )
    failure = Failure(error="PolicyFailure", message=f"broke {text}", iteration=1)
    return Tree(f"task {text}", (rolled,), ended("failed", 1, 3, failure), f"Find {text}")


def large_tree(number: int, num_nodes: int) -> Tree:
    """Five children per node, texts of 400 letters that are all different, a rollout each time."""
    rng = random.Random(number)
    iterations: list[Iteration] = []
    open_nodes, count = [0], 1
    while count < num_nodes:
        selected = open_nodes.pop(rng.randrange(len(open_nodes)))
        width = min(5, num_nodes - count)
        children = [
            step(f"go[{number}-{count + i}]", f"page {number}-{count + i} " + "lorem ipsum " * 32)
            for i in range(width)
        ]
        rolled = (step(f"buy[{number}]", f"bought {number}-{count}", rng.random()),)
        iterations.append(
            Iteration(
                number=len(iterations),
                selected=selected,
                children=tuple(children),
                evaluated=count,
                rollout=rolled,
                reward=rolled[0].reward,
            )
        )
        open_nodes += range(count, count + width)
        count += width
    end = ended("iterations", len(iterations), count)
    return Tree(f"task-{number:04}", iterations, end, f"Instruction {number}: buy a thing.")

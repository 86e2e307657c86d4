"""Solved episodes, played by rule with the goal in view: examples for prompts, proof for tests."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from lit_qagent.core.records import Task, Trajectory
from lit_qagent.core.seeds import derive_seed
from lit_qagent.environments.splits import SplitSizes
from lit_qagent.environments.webshop.catalog import CatalogSpec, generate_catalog
from lit_qagent.environments.webshop.engine import BUY, NEXT, PageSpec
from lit_qagent.environments.webshop.environment import WebShop
from lit_qagent.environments.webshop.files_world import WebShopFiles
from lit_qagent.environments.webshop.goals import Goal, draw_goals
from lit_qagent.environments.webshop.queries import list_queries
from lit_qagent.environments.webshop.world import ShopWorld

_NUM_EXAMPLES = 2
_NUM_PRODUCTS = 40
_MAX_STEPS = 60


def solve(environment: ShopWorld, task: Task) -> Trajectory:
    """Play a shop task to full reward in a branch of its own, knowing the goal product.

    No agent may call this; it shows what a perfect customer does.

    Args:
        environment: A shop; its step limit holds.
        task: One of its tasks.
    """
    branch = environment.fork()
    branch.reset(task)
    for action in _plan(branch, Goal.from_task(task)):
        if branch.is_over:
            break
        branch.step(action)
    return branch.trajectory


@lru_cache(maxsize=8)
def solved_examples(catalog: CatalogSpec, pages: PageSpec) -> Sequence[Trajectory]:
    """Return solved tasks of a small catalogue of its own, in the form that the knobs ask for."""
    world = WebShop(
        catalog=replace(
            catalog, num_products=_NUM_PRODUCTS, seed=derive_seed(catalog.seed, "examples")
        ),
        splits=SplitSizes(train=_NUM_EXAMPLES, valid=0, test=0),
        pages=pages,
        max_steps=_MAX_STEPS,
    )
    return tuple(solve(world, task) for task in world.tasks("train"))


def solved_in(world: WebShopFiles) -> Sequence[Trajectory]:
    """Return solved tasks of a small generated catalogue, on the pages of another shop world."""
    spec = CatalogSpec(num_products=_NUM_PRODUCTS, seed=derive_seed("webshop", "examples"))
    products = generate_catalog(spec)
    sizes = SplitSizes(train=_NUM_EXAMPLES, valid=0, test=0)
    twin = world.with_products(products)
    twin.max_steps = _MAX_STEPS
    tasks = draw_goals(products, sizes, spec, hidden_attributes=False)["train"]
    return tuple(solve(twin, task) for task in tasks)


def _plan(branch: ShopWorld, goal: Goal) -> Iterator[str]:
    query = _best_query(branch, goal)
    yield _message(f"I search for {query}.", f"search[{query}]")
    while (label := branch.label_of(goal.asin)) is None:
        yield _message("Nothing here fits. I look at the next page.", f"click[{NEXT}]")
    yield _message(
        f"{label} has what I need and costs less than {goal.price_upper:.2f}.",
        f"click[{label}]",
    )
    options = goal.options if isinstance(goal.options, Mapping) else {}
    for kind, value in options.items():
        yield _message(f"The {kind} should be {value}.", f"click[{value}]")
    yield _message("Everything is chosen, so I buy.", f"click[{BUY}]")


def _best_query(branch: ShopWorld, goal: Goal) -> str:
    """Return the first listed query that leads to the goal, on its first page if possible."""
    queries = list_queries(branch.task.instruction)
    reached = {query: _pages_to(branch, query, goal) for query in queries}
    found = {query: pages for query, pages in reached.items() if pages is not None}
    return min(found, key=lambda query: found[query]) if found else goal.title


def _pages_to(branch: ShopWorld, query: str, goal: Goal) -> int | None:
    """Return how many pages of a query's results come before the goal; None if it is on none."""
    twin = branch.fork()
    twin.max_steps = _MAX_STEPS
    twin.step(f"search[{query}]")
    num_pages = 0
    while twin.label_of(goal.asin) is None:
        if not twin.step(f"click[{NEXT}]").valid:
            return None
        num_pages += 1
    return num_pages


def _message(thought: str, command: str) -> str:
    return f"Thought: {thought}\nAction: {command}"

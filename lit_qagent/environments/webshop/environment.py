"""The shop as a world: search, open a product, choose its options, buy it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

from lit_qagent.core.actions import Call, parse_call
from lit_qagent.core.records import Observation, Task, Trajectory
from lit_qagent.environments.base import Environment, Outcome
from lit_qagent.environments.splits import SplitSizes, tasks_of_split
from lit_qagent.environments.webshop.catalog import CatalogSpec, generate_catalog
from lit_qagent.environments.webshop.engine import (
    BACK,
    BUY,
    NEXT,
    PREVIOUS,
    SUBPAGES,
    PageSpec,
    Shop,
    ShopState,
)
from lit_qagent.environments.webshop.goals import Goal, draw_goals
from lit_qagent.environments.webshop.pages import render_page
from lit_qagent.environments.webshop.queries import list_queries
from lit_qagent.environments.webshop.reward import NOUN_RULE, PARTS, judge_purchase

_SEARCH_PATTERN = r"search\[[^\[\]\n]{1,80}\]"
_DEFAULT_CATALOG = CatalogSpec()
_DEFAULT_SPLITS = SplitSizes()
_DEFAULT_PAGES = PageSpec()


class WebShop(Environment):
    """A shop on a generated catalogue; the reward is WebShop's, given when something is bought.

    Args:
        catalog: The catalogue to generate.
        splits: Tasks per split.
        pages: What its pages show and offer.
        max_steps: Step limit.
    """

    name = "webshop"
    version = "1"

    def __init__(
        self,
        *,
        catalog: CatalogSpec = _DEFAULT_CATALOG,
        splits: SplitSizes = _DEFAULT_SPLITS,
        pages: PageSpec = _DEFAULT_PAGES,
        max_steps: int = 10,
    ) -> None:
        super().__init__(max_steps=max_steps)
        self.catalog = catalog
        self.splits = splits
        self.pages = pages
        products = generate_catalog(catalog)
        self._shop = Shop(products, pages)
        self._tasks = draw_goals(products, splits, catalog, hidden_attributes=pages.subpages)
        self._products_hash = _hash([asdict(product) for product in products])

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of ``train``, ``valid`` or ``test``."""
        return tasks_of_split(self._tasks, split, self.name)

    def instructions(self) -> str:
        """Return how to shop."""
        task = (
            "Buy the product that fits the instruction: open it, choose the options asked for, "
            "then buy."
        )
        if self.pages.search == "listed":
            # Such a model only picks from the page's list; names of buttons here would be copied.
            return task
        buttons = [BUY, *(SUBPAGES if self.pages.subpages else ()), NEXT]
        if self.pages.back_buttons:
            buttons += [PREVIOUS, BACK]
        return (
            f"{task}\n"
            "Commands: search[words] on the search page; click[x] with x a product code, an "
            f"option value or a button: {', '.join(buttons)}."
        )

    def data_hash(self) -> str:
        """Return a hash of the catalogue, the tasks and the form of the pages."""
        return self._data_hash

    def settings(self) -> dict[str, Any]:
        """Return the base settings, the knobs, and how title nouns are found."""
        return {
            **super().settings(),
            "catalog": asdict(self.catalog),
            "splits": asdict(self.splits),
            "pages": asdict(self.pages),
            "title_nouns": NOUN_RULE,
        }

    def examples(self) -> Sequence[Trajectory]:
        """Return two solved tasks of another catalogue of the same form."""
        # Imported here because the examples are played in a world of this class.
        from lit_qagent.environments.webshop.examples import solved_examples

        return solved_examples(self.catalog, self.pages)

    def _start(self, task: Task) -> Observation:
        self._state = ShopState()
        if self.pages.observation == "compact":
            return self._observe(f"Instruction: {task.instruction}")
        return self._observe(self._render())

    def _act(self, command: str) -> Outcome:
        call = parse_call(command)
        following = self._follow(call) if call else None
        if following is None:
            return Outcome(observation=self._invalid_observation(command), valid=False)
        self._state = following
        if following.page != "end":
            return Outcome(observation=self._observe(self._render()))
        product = self._shop.product(following.asin)
        purchase = judge_purchase(Goal.from_task(self.task), product, following.options)
        return Outcome(
            observation=Observation(text=self._render()),
            reward=purchase.reward,
            terminated=True,
            metrics=purchase.metrics(),
        )

    def _metrics_at_limit(self) -> Mapping[str, float]:
        return dict.fromkeys(PARTS, 0.0)

    def _follow(self, call: Call) -> ShopState | None:
        """Return the state after a command, or None if it is not legal here."""
        state: ShopState = self._state
        if call.verb == "click":
            return self._shop.click(state, call.argument)
        if call.verb == "search" and state.page == "start" and call.argument:
            return self._shop.search(call.argument)
        return None

    def _render(self) -> str:
        return render_page(self._shop, self._state, self.task.instruction, self.pages.observation)

    def _observe(self, text: str) -> Observation:
        state: ShopState = self._state
        if state.page != "start":
            commands = tuple(f"click[{name}]" for name in self._shop.clickables(state))
            return Observation(text=text, admissible=commands)
        if self.pages.search == "open":
            return Observation(text=text, pattern=_SEARCH_PATTERN)
        queries = list_queries(self.task.instruction)
        return Observation(text=text, admissible=tuple(f"search[{query}]" for query in queries))

    @cached_property
    def _data_hash(self) -> str:
        ids = {split: [task.task_id for task in tasks] for split, tasks in self._tasks.items()}
        return _hash([self.version, asdict(self.pages), self._products_hash, ids])


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

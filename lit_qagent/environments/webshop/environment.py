"""The shop on a generated catalogue as a world."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

from lit_qagent.core.records import Task, Trajectory
from lit_qagent.environments.splits import SplitSizes, tasks_of_split
from lit_qagent.environments.webshop.catalog import CatalogSpec, generate_catalog
from lit_qagent.environments.webshop.engine import PageSpec, Shop, ShopState
from lit_qagent.environments.webshop.goals import draw_goals
from lit_qagent.environments.webshop.nouns import GENERATED_NOUNS
from lit_qagent.environments.webshop.pages import render_page
from lit_qagent.environments.webshop.queries import list_queries
from lit_qagent.environments.webshop.reward import Purchase, RewardRule
from lit_qagent.environments.webshop.world import TASK, ShopWorld, hash_content

_DEFAULT_CATALOG = CatalogSpec()
_DEFAULT_SPLITS = SplitSizes()
_DEFAULT_PAGES = PageSpec()


class WebShop(ShopWorld):
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
        self._rule = RewardRule()
        self._tasks = draw_goals(products, splits, catalog, hidden_attributes=pages.subpages)
        self._products_hash = hash_content([asdict(product) for product in products])

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of ``train``, ``valid`` or ``test``."""
        return tasks_of_split(self._tasks, split, self.name)

    def instructions(self) -> str:
        """Return how to shop."""
        if self.pages.search == "listed":
            # Such a model only picks from the page's list; names of buttons here would be copied.
            return TASK
        return self._describe_commands(
            subpages=self.pages.subpages, back_buttons=self.pages.back_buttons
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
            "title_nouns": GENERATED_NOUNS.name,
        }

    def examples(self) -> Sequence[Trajectory]:
        """Return two solved tasks of another catalogue of the same form."""
        # Imported here because the examples are played in a world of this class.
        from lit_qagent.environments.webshop.examples import solved_examples

        return solved_examples(self.catalog, self.pages)

    def _start_page(self, task: Task) -> str:
        if self.pages.observation == "compact":
            return f"Instruction: {task.instruction}"
        return super()._start_page(task)

    def _render(self, state: ShopState, purchase: Purchase | None = None) -> str:
        return render_page(self._shop, state, self.task.instruction, self.pages.observation)

    def _listed_queries(self) -> tuple[str, ...] | None:
        return None if self.pages.search == "open" else list_queries(self.task.instruction)

    @cached_property
    def _data_hash(self) -> str:
        ids = {split: [task.task_id for task in tasks] for split, tasks in self._tasks.items()}
        return hash_content([self.version, asdict(self.pages), self._products_hash, ids])

"""WebShop on its own files, in the process: no Java, no web server."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, Self

from lit_qagent.core.errors import ConfigError, OverlapError
from lit_qagent.core.records import Task, Trajectory
from lit_qagent.environments.webshop.catalog import Product
from lit_qagent.environments.webshop.colors import COLOR_NAMES
from lit_qagent.environments.webshop.engine import PageSpec, Search, Shop, ShopState
from lit_qagent.environments.webshop.goal_book import GoalTasks
from lit_qagent.environments.webshop.manifests import Manifest, load_manifest
from lit_qagent.environments.webshop.nouns import choose_nouns
from lit_qagent.environments.webshop.original import OriginalShop
from lit_qagent.environments.webshop.original_pages import render_original, shorten
from lit_qagent.environments.webshop.pages import render_page
from lit_qagent.environments.webshop.queries import list_queries
from lit_qagent.environments.webshop.reward import Purchase, RewardRule
from lit_qagent.environments.webshop.small_pages import SmallPages, SmallShop
from lit_qagent.environments.webshop.stock import ShopFiles, Stock, load_stock
from lit_qagent.environments.webshop.world import TASK, ShopWorld, hash_content

_log = logging.getLogger(__name__)
_PAGES = PageSpec(observation="text")
_MAX_QUERY_CHARS = 200
_MAX_TWIN_GOALS = 1_000_000


class WebShopFiles(ShopWorld):
    """WebShop on its official files: goals, pages and rewards are the original's.

    Every price and price limit follows from the seed, in the original's order of draws: seed 0
    here is ``random.seed(0)`` before the original starts.

    The 1,000 products load in seconds. A products file above 128 MiB is read once, at about 10,000
    products a second, into the cache folder (``LIT_QAGENT_CACHE``) and memory-mapped from then on;
    goals are made when asked for. What stays in memory is the attributes file while loading, and
    of synthetic goals 4 bytes each and the words of each product that has an instruction.

    Args:
        products: ``items_shuffle.json`` or its first 1,000, unchanged.
        attributes: ``items_ins_v2.json`` or its first 1,000, unchanged.
        human: ``items_human_ins.json``; needed for human goals only.
        goals: ``human``: instructions written by people. ``synthetic``: made by rule.
        splits: ``official`` (test 0 to 499, of human goals valid 500 to 1,499, train the rest),
            ``eto``, ``paper`` (both for the full files' human goals), or a manifest's path.
        overlap: What to do about training goals that are held out, too: ``refuse`` them, or
            ``drop`` them from training.
        missing_products: What to do about instructions for products that are not in the files:
            ``refuse`` them, or ``drop`` them, as the original does without a word.
        observation: ``text`` and ``text_rich``: the original's. ``compact``: short pages.
        search: ``open``: the model writes its queries. ``listed``: the search page offers up to
            three queries made from the instruction's words, for very small models.
        title_nouns: How the reward finds the nouns of titles. ``words``: a rule that needs no
            package, approximate. ``spacy``: as the original does, exact; the extra ``worlds``.
        small: Short pages, for very small models; their form in place of ``observation``.
        num_products: Take only so many products from the file's beginning.
        max_steps: Step limit.
        seed: Decides prices and price limits.
    """

    name = "webshop_files"
    version = "1"
    _search_pattern = rf"search\[[^\[\]\n]{{1,{_MAX_QUERY_CHARS}}}\]"

    def __init__(  # noqa: PLR0913 (flat keys are what a YAML file wants)
        self,
        *,
        products: str,
        attributes: str,
        human: str | None = None,
        goals: Literal["human", "synthetic"] = "human",
        splits: str = "official",
        overlap: Literal["refuse", "drop"] = "refuse",
        missing_products: Literal["refuse", "drop"] = "refuse",
        observation: Literal["text", "text_rich", "compact"] = "text",
        search: Literal["open", "listed"] = "open",
        title_nouns: Literal["words", "spacy"] = "words",
        small: SmallPages | None = None,
        num_products: int | None = None,
        max_steps: int = 10,
        seed: int = 0,
    ) -> None:
        super().__init__(max_steps=max_steps)
        if num_products is not None and num_products < 1:
            raise ConfigError(f"num_products must be >= 1, got {num_products}")
        files = ShopFiles(products=products, attributes=attributes, human=human)
        self.goals = goals
        self.overlap = overlap
        self.observation_style = observation
        self.search_mode = search
        self.small = small
        self.seed = seed
        self._rule = RewardRule(nouns=choose_nouns(title_nouns), colors=COLOR_NAMES, pairs=True)
        self._stock = load_stock(
            files,
            goals,
            seed=seed,
            num_products=num_products,
            drop_missing=missing_products == "drop",
        )
        self._manifest = load_manifest(splits, goals=goals, num_goals=len(self._stock.book))
        self._left_out, self._tasks = _deal(self._stock, self._manifest, drop=overlap == "drop")
        self._shop = self._open_shop(self._stock.products, self._stock.search)
        self._settings = self._describe()
        self._solved: list[Trajectory] = []  # the examples, once made; forks share them

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the goals of a split as tasks, made when asked for.

        Raises:
            ConfigError: No such split.
            OverlapError: Goals of the split are held out by another one.
        """
        if split not in self._tasks:
            known = ", ".join(self._tasks)
            raise ConfigError(f"{self.name} has no split {split!r}; choose one of {known}")
        shared = self._manifest.shared(split)
        if shared and self.overlap == "refuse":
            some = ", ".join(str(index) for index in sorted(shared)[:8])
            raise OverlapError(
                f"{len(shared)} of the {len(self._manifest.splits[split])} goals of split "
                f"{split!r} of the {self._manifest.name} lists are also in "
                f"{', '.join(sorted(set(shared.values())))} (goals {some}): training on them would "
                "spoil the test; set overlap: drop to leave them out of training"
            )
        return self._tasks[split]

    def instructions(self) -> str:
        """Return how to shop."""
        return TASK if self.search_mode == "listed" else self._describe_commands()

    def data_hash(self) -> str:
        """Return a hash of the files, the goals, the splits and the form of the pages."""
        return str(self._settings["data_hash"])

    def settings(self) -> dict[str, Any]:
        """Return the base settings, what was read, and how exact the reward is."""
        return {"name": self.name, "version": self.version, "max_steps": self.max_steps} | dict(
            self._settings
        )

    def examples(self) -> Sequence[Trajectory]:
        """Return two solved tasks of a generated catalogue, on pages of the same form."""
        from lit_qagent.environments.webshop.examples import solved_in

        if not self._solved:
            self._solved.extend(solved_in(self))
        return tuple(self._solved)

    def with_products(self, products: Sequence[Product]) -> Self:
        """Return a branch whose shop has other products, the same pages and no exact nouns."""
        twin = self.fork()
        twin._shop = twin._open_shop(products)
        twin._rule = RewardRule()
        return twin

    def _open_shop(self, products: Sequence[Product], search: Search | None = None) -> Shop:
        if self.small:
            return SmallShop(products, self.small, search)
        return OriginalShop(products, _PAGES, search)

    def _start_page(self, task: Task) -> str:
        if self.small or self.observation_style == "compact":
            return shorten(f"Instruction: {task.instruction}")
        return super()._start_page(task)

    def _listed_queries(self) -> tuple[str, ...] | None:
        if self.search_mode == "open":
            return None
        instruction = self.task.instruction
        queries = self.small.queries(instruction) if self.small else list_queries(instruction)
        return tuple(dict.fromkeys(query[:_MAX_QUERY_CHARS].strip() for query in queries))

    def _render(self, state: ShopState, purchase: Purchase | None = None) -> str:
        instruction, style = self.task.instruction, self.observation_style
        if isinstance(self._shop, SmallShop):
            return shorten(self._shop.render(state))
        if style == "compact":
            return shorten(render_page(self._shop, state, instruction, style))
        reward = purchase.reward if purchase else 0.0
        return render_original(self._shop, state, instruction, style, reward)

    def _describe(self) -> Mapping[str, Any]:
        facts = {
            "goals": self.goals,
            "observation": self.observation_style,
            "search": self.search_mode,
            "seed": self.seed,
            "title_nouns": self._rule.nouns.name,
            "splits": {
                "name": self._manifest.name,
                "sha256": self._manifest.sha256(),
                "sizes": {split: len(tasks) for split, tasks in self._tasks.items()},
                "repeated": dict(self._manifest.repeated),
                "overlap": self.overlap,
                "left_out": self._left_out,
                "twins_of_held_out": _count_twins(self._stock, self._manifest),
            },
            **self._stock.settings(),
            **({"small": asdict(self.small)} if self.small else {}),
        }
        return {"data_hash": hash_content([self.version, facts]), **facts}


def _deal(
    stock: Stock, manifest: Manifest, *, drop: bool
) -> tuple[dict[str, int], dict[str, Sequence[Task]]]:
    """Return how many goals each split lost to held-out ones, and its tasks."""
    left_out: dict[str, int] = {}
    tasks: dict[str, Sequence[Task]] = {}
    for split, indices in manifest.splits.items():
        shared = manifest.shared(split) if drop else {}
        if shared:
            left_out[split] = len(shared)
            indices = [index for index in indices if index not in shared]
            _log.warning("webshop: %d held-out goals left out of %s", len(shared), split)
        tasks[split] = GoalTasks(stock.book, indices, split)
    return left_out, tasks


def _count_twins(stock: Stock, manifest: Manifest) -> dict[str, int] | None:
    """Count goals that ask for the same as a held-out goal elsewhere in the order.

    The official lists have a few, as some products name an option value twice. Not counted for
    millions of goals (None).
    """
    if len(stock.book) > _MAX_TWIN_GOALS:
        return None
    twins = {}
    for split, indices in manifest.splits.items():
        held_out = {
            index for name in manifest.held_out_before(split) for index in manifest.splits[name]
        }
        keys = {stock.book.content_key(index) for index in held_out}
        twins[split] = sum(
            index not in held_out and stock.book.content_key(index) in keys for index in indices
        )
    return twins

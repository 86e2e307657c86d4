"""What a shop on WebShop's files has: products, their search, and the goals."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lit_qagent.core.errors import ConfigError, DataError
from lit_qagent.environments.webshop.catalog import Product
from lit_qagent.environments.webshop.engine import Search
from lit_qagent.environments.webshop.goal_book import GoalBook, GoalKind, build_book
from lit_qagent.environments.webshop.records import SOURCE, read_object
from lit_qagent.environments.webshop.search_cache import open_search
from lit_qagent.environments.webshop.stored_catalog import open_catalog
from lit_qagent.environments.webshop.wishes import (
    find_products,
    has_instruction,
    human_wishes,
    synthetic_wishes,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShopFiles:
    """Where WebShop's files are.

    Attributes:
        products: ``items_shuffle*.json``.
        attributes: ``items_ins_v2*.json``.
        human: ``items_human_ins.json``.
    """

    products: str
    attributes: str
    human: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Stock:
    """What was read.

    Attributes:
        products: The catalogue.
        search: What finds its products.
        book: The goals.
        facts: What reading found, for settings and reports.
    """

    products: Sequence[Product]
    search: Search
    book: GoalBook
    facts: Mapping[str, Any]

    def settings(self) -> dict[str, Any]:
        """Return what identifies the stock."""
        return dict(self.facts)


def load_stock(
    files: ShopFiles, goals: GoalKind, *, seed: int, num_products: int | None, drop_missing: bool
) -> Stock:
    """Read the files.

    Args:
        files: Where they are.
        goals: Which goals to make.
        seed: Decides prices and price limits.
        num_products: Take only so many records from the beginning.
        drop_missing: Leave out instructions whose product is not there.

    Raises:
        ConfigError: The file of the goals is not given.
        DataError: A file is missing, damaged, or does not fit the others.
    """
    if goals == "human" and files.human is None:
        raise ConfigError(
            "webshop goals: human needs the file items_human_ins.json; give its path as human, "
            "or set goals: synthetic"
        )
    notes, notes_hash = read_object(Path(files.attributes))
    catalog = open_catalog(
        Path(files.products), notes, notes_hash, seed=seed, num_products=num_products
    )
    products, report = catalog.products, catalog.report
    hashes = {"products": report.sha256, "attributes": notes_hash}
    if goals == "human":
        path = Path(str(files.human))
        records, hashes["human"] = read_object(path)
        positions = find_products(products, records)
        wishes = list(human_wishes(positions, records, path))
        missing = sorted(set(records) - {asin for asin, _ in positions})
    else:
        path, records = Path(files.attributes), notes
        wanted = {asin: note for asin, note in notes.items() if has_instruction(note)}
        positions = find_products(products, wanted)
        wishes = list(synthetic_wishes(positions, notes, path))
        missing = sorted(set(wanted) - {asin for asin, _ in positions})
    if missing and not drop_missing:
        raise DataError(
            f"WebShop file {path}: {len(missing)} records with instructions, the first "
            f"{missing[0]!r}, name products that {files.products} does not have; {SOURCE}, "
            "take files that belong together, or set missing_products: drop"
        )
    if missing:
        _log.warning("webshop: %d records of %s left out: no such product", len(missing), path)
    book = build_book(products, wishes, catalog.rng)
    facts = {
        "files": hashes,
        "reading": {name: value for name, value in asdict(report).items() if name != "sha256"},
        "num_products": len(products),
        "num_goals": len(book),
        "num_missing_products": len(missing),
        "goals_sha256": book.sha256(),
    }
    return Stock(products=products, search=open_search(products), book=book, facts=facts)

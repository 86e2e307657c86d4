"""The products of a file as a catalogue: in memory, or for a big file in a folder made once."""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lit_qagent.core.errors import DataError
from lit_qagent.core.folders import cache_folder
from lit_qagent.environments.webshop.catalog import Product
from lit_qagent.environments.webshop.files import ReadingReport, read_products
from lit_qagent.environments.webshop.product_store import ProductStore, write_products
from lit_qagent.environments.webshop.records import SOURCE

_MAX_IN_MEMORY_BYTES = 1 << 27  # about 50,000 products
_FORM = 1  # counts up when reading changes what a stored product is


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalog:
    """What a products file holds.

    Attributes:
        products: In the file's order.
        report: What reading left out or changed.
        rng: Where the seed's draws go on after the prices.
    """

    products: Sequence[Product]
    report: ReadingReport
    rng: random.Random


def open_catalog(
    path: Path,
    notes: Mapping[str, Any],
    notes_hash: str,
    *,
    seed: int,
    num_products: int | None = None,
    max_bytes: int = _MAX_IN_MEMORY_BYTES,
) -> Catalog:
    """Read a products file, or open what an earlier reading of it kept in the cache folder.

    Args:
        path: A file in the form of ``items_shuffle.json``.
        notes: Product code to its record in ``items_ins_v2.json``.
        notes_hash: Hash of that file.
        seed: Decides the prices.
        num_products: Take only so many records from the beginning.
        max_bytes: Larger files are kept in a folder, unless ``num_products`` is given.

    Raises:
        DataError: The file is missing, damaged, or has another form.
    """
    try:
        facts = path.stat()
    except OSError as error:
        raise DataError(f"cannot read WebShop file {path}: {error.strerror}; {SOURCE}") from error
    rng, report = random.Random(seed), ReadingReport()
    if num_products is not None or facts.st_size <= max_bytes:
        in_memory = tuple(read_products(path, notes, rng, report, num_products))
        return Catalog(products=in_memory, report=report, rng=rng)
    from filelock import FileLock

    named = [_FORM, str(path.resolve()), facts.st_size, facts.st_mtime_ns, notes_hash, seed]
    key = hashlib.sha256(json.dumps(named).encode()).hexdigest()[:24]
    folder = cache_folder() / "webshop" / f"catalog-{key}"
    notice = folder.with_name(f"{folder.name}.json")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # two processes read it once, not twice
        kept = _open_kept(folder, notice)
        if kept is None:
            write_products(folder, read_products(path, notes, rng, report))
            notice.write_text(json.dumps(asdict(report)), encoding="utf-8")
            kept = ProductStore(folder), report
    products, report = kept
    rng = random.Random(seed)
    for _ in range(report.num_priced_by_chance):
        rng.random()
    return Catalog(products=products, report=report, rng=rng)


def _open_kept(folder: Path, notice: Path) -> tuple[ProductStore, ReadingReport] | None:
    """Return what an earlier reading kept; None if there is nothing, or it is damaged."""
    try:
        return ProductStore(folder), ReadingReport(**json.loads(notice.read_text("utf-8")))
    except (DataError, OSError, ValueError, TypeError):
        return None

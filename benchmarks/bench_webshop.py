"""The shop at scale: loading, search, memory, and many sessions on one catalogue.

    python benchmarks/bench_webshop.py                        # 1,000 and 100,000 products
    python benchmarks/bench_webshop.py --products 1180000     # as many as the original has

Every size is measured in a process of its own on one core, so that its memory is its own. The
other side of the search is scoring every product by every word of the query, on the same index;
both must find the same products.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rows import add_json_option, show

from lit_qagent.core.records import Task
from lit_qagent.environments.splits import SplitSizes
from lit_qagent.environments.webshop import WebShop
from lit_qagent.environments.webshop.bulk_catalog import bulk_products, bulk_query
from lit_qagent.environments.webshop.catalog import CatalogSpec
from lit_qagent.environments.webshop.product_store import ProductStore, write_products
from lit_qagent.environments.webshop.search_cache import open_search
from lit_qagent.environments.webshop.search_index import SearchIndex

NUM_RESULTS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--products", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--sessions", type=int, default=1_000)
    parser.add_argument("--folder", type=Path, help="where catalogues are made; else temporary")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    add_json_option(parser)
    options = parser.parse_args()
    if options.part:
        name, *values = options.part
        print(json.dumps(PARTS[name](*values)))
        return
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    rows = [run_part("load", "1000"), run_part("sessions", str(options.sessions))]
    with tempfile.TemporaryDirectory(dir=options.folder) as home:
        for size in options.products:
            folder = str(Path(home) / str(size))
            rows.append(run_part("build", folder, str(size)))
            rows.append(run_part("search", folder, str(options.queries)))
    show(rows, options.json)


def run_part(*part: str) -> dict[str, Any]:
    """Run a part in a new process and return its row."""
    done = subprocess.run(
        [sys.executable, __file__, "--part", *part],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure_load(num_products: str) -> dict[str, Any]:
    """A shop from nothing to its first results."""
    before_s = time.perf_counter()
    shop = make_shop(int(num_products))
    task = shop.tasks("train")[0]
    shop.reset(task)
    found = shop.step(f"search[{task.data['query']}]")
    assert found.valid
    return {
        "claim": "load",
        "products": int(num_products),
        "load_s": time.perf_counter() - before_s,
        "peak_rss_mb": peak_rss_mb(),
    }


def measure_sessions(num_sessions: str) -> dict[str, Any]:
    """Memory of sessions that are all in the middle of an episode on one catalogue."""
    shop = make_shop(1_000)
    tasks = shop.tasks("train")
    start_session(shop, tasks[0])  # makes what all of them share
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    before_s = time.perf_counter()
    sessions = [start_session(shop, tasks[i % len(tasks)]) for i in range(int(num_sessions))]
    taken_s = time.perf_counter() - before_s
    used = tracemalloc.get_traced_memory()[0] - before
    return {
        "claim": "sessions",
        "sessions": len(sessions),
        "steps_each": len(sessions[0].actions),
        "kb_each": used / len(sessions) / 1024,
        "ms_each": taken_s / len(sessions) * 1000,
    }


def start_session(shop: WebShop, task: Task) -> WebShop:
    """Search, open the first product and look at its description."""
    session = shop.fork()
    session.reset(task)
    found = session.step(f"search[{task.data['query']}]").observation
    session.step((found.admissible or ("",))[0])
    session.step("click[Description]")
    return session


def make_shop(num_products: int) -> WebShop:
    return WebShop(
        catalog=CatalogSpec(num_products=num_products),
        splits=SplitSizes(train=1_000, valid=100, test=100),
    )


def measure_build(folder: str, num_products: str) -> dict[str, Any]:
    """Catalogue and index on disk, made once."""
    home, size = Path(folder), int(num_products)
    start_s = time.perf_counter()
    store = write_products(home / "store", bulk_products(size))
    stored_s = time.perf_counter()
    open_search(store, home)
    return {
        "claim": "build",
        "products": size,
        "store_s": stored_s - start_s,
        "index_s": time.perf_counter() - stored_s,
        "disk_mb": sum(path.stat().st_size for path in home.rglob("*")) / 2**20,
        "peak_rss_mb": peak_rss_mb(),
    }


def measure_search(folder: str, num_queries: str) -> dict[str, Any]:
    """Search in a built index on one core, against scoring every product."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    home = Path(folder)
    start_s = time.perf_counter()
    store = ProductStore(home / "store")
    index = open_search(store, home)
    open_s = time.perf_counter() - start_s
    rng = np.random.default_rng(0)
    queries = [
        bulk_query(store[int(position)], rng)
        for position in rng.integers(0, len(store), int(num_queries))
    ]
    pages = [store[position].title for position in index.rank(queries[0], NUM_RESULTS)]
    times, found = time_queries(index.rank, queries)
    some = queries[:: max(1, len(queries) // 40)]
    all_times, all_found = time_queries(lambda query, k: score_all(index, query, k), some)
    assert all_found == found[:: max(1, len(queries) // 40)], "pruning changed a ranking"
    p50, p99 = np.percentile(times, [50, 99])
    return {
        "claim": "search",
        "products": len(store),
        "open_s": open_s,
        "queries": len(queries),
        "p50_ms": p50 * 1000,
        "p99_ms": p99 * 1000,
        "score_all_p50_ms": float(np.median(all_times)) * 1000,
        "peak_rss_mb": peak_rss_mb(),
        "results": len(pages),
    }


def time_queries(
    rank: Callable[[str, int], list[int]], queries: Sequence[str]
) -> tuple[list[float], list[list[int]]]:
    times, found = [], []
    for query in queries:
        start_s = time.perf_counter()
        found.append(rank(query, NUM_RESULTS))
        times.append(time.perf_counter() - start_s)
    return times, found


def score_all(index: SearchIndex, query: str, k: int) -> list[int]:
    """Rank by scoring every product by every term."""
    hits = index._best(*index._score_all(index._query_terms(query)), k)
    return [hit.position for hit in hits]


def peak_rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "load": measure_load,
    "sessions": measure_sessions,
    "build": measure_build,
    "search": measure_search,
}

if __name__ == "__main__":
    main()

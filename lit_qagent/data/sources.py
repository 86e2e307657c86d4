"""Where pairs come from: our own folders, files and hub sets in foreign formats, and mixtures."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from lit_qagent.core.errors import ConfigError, DataError
from lit_qagent.core.pairs import CARD_FILE, PAIR_SCHEMA_VERSION, PairCard, PreferencePair
from lit_qagent.core.seeds import derive_seed
from lit_qagent.data.foreign import HubPart, foreign_pairs, read_rows
from lit_qagent.data.pairs import PairSet, check_folder, iterate_pairs, read_pairs

_FILES = (".json", ".jsonl", ".parquet")


@dataclass(frozen=True, kw_only=True)
class PairSource:
    """Pairs and how often each is used in an epoch.

    Attributes:
        path: Folder that ``data_collection pairs`` wrote; a ``.json``, ``.jsonl`` or ``.parquet``
            file in TRL's preference formats or the original's; or a hub id.
        weight: Times that each pair is used in an epoch, above 0; 0.5 takes every other pair.
        split: Of a set on the hub; None is ``train``.
        subset: Of a set on the hub, the name of a configuration; None is the only or default one.
        revision: Of a set on the hub, a branch, tag or commit; None is the newest.
    """

    path: Path
    weight: float = 1.0
    split: str | None = None
    subset: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ConfigError(f"data.pairs weight of {self.path} must be > 0, got {self.weight}")

    @property
    def part(self) -> HubPart:
        """Which rows of a set on the hub.

        Raises:
            ConfigError: It is no such set, and part of one is asked for.
        """
        given = [name for name in ("split", "subset", "revision") if getattr(self, name)]
        path = Path(self.path)
        if given and (_is_own(path) or path.suffix in _FILES):
            raise ConfigError(
                f"{str(path)!r} is no set on the hub, so it has no {' and '.join(given)}; remove it"
            )
        return HubPart(self.split or "train", self.subset, self.revision)


def read_sources(sources: Sequence[PairSource], seed: int) -> PairSet:
    """Read, check and mix pairs.

    Raises:
        DataError: A source is missing or cannot be used.
        ConfigError: There is none.
    """
    if not sources:
        raise ConfigError("data.pairs names no source; give a folder, a file or a hub id")
    found = [(source, _read(source)) for source in sources]
    if len(found) == 1 and sources[0].weight == 1:
        return found[0][1]
    pairs = [pair for source, part in found for pair in weighted(part.pairs, source.weight, seed)]
    return PairSet(pairs=tuple(pairs), card=_joined([part.card for _, part in found], len(pairs)))


def weighted(pairs: Sequence[PreferencePair], weight: float, seed: int) -> list[PreferencePair]:
    """Repeat pairs, and choose as many as the fraction says by the rank of a hash.

    Examples:
        >>> len(weighted([], 1.5, seed=0))
        0
    """
    whole = int(weight)
    ranked = sorted(range(len(pairs)), key=lambda i: derive_seed("weight", seed, i))
    extra = sorted(ranked[: round((weight - whole) * len(pairs))])
    return [*(pair for _ in range(whole) for pair in pairs), *(pairs[i] for i in extra)]


class Scan(NamedTuple):
    """What sources hold, without their pairs.

    Attributes:
        card: Of all of them together.
        task_ids: The tasks that have pairs.
        sizes: Pairs of each source.
    """

    card: PairCard
    task_ids: set[str]
    sizes: list[int]


def scan_sources(sources: Sequence[PairSource], seed: int) -> Scan:
    """Read and check all pairs once, keeping none.

    Raises:
        DataError: A source is missing or cannot be used.
        ConfigError: There is none, or one that can only be read whole.
    """
    if not sources:
        raise ConfigError("data.pairs names no source; give a folder, a file or a hub id")
    cards, sizes = [], []
    tasks: set[str] = set()
    for source in sources:
        path = Path(source.path)
        card = check_folder(path) if _is_own(path) else None
        found = _foreign_card(path, iterate_source(source))
        if not found.num_pairs:
            raise DataError(f"{str(path)!r} has no pairs; give a file with at least one")
        cards.append(card or found)
        sizes.append(found.num_pairs)
        tasks |= set(found.task_ids)
    if len(cards) == 1 and sources[0].weight == 1:
        return Scan(cards[0], tasks, sizes)
    used = sum(round(s.weight * size) for s, size in zip(sources, sizes, strict=True))
    return Scan(_joined(cards, used), tasks, sizes)


def mixed(
    sources: Sequence[PairSource], sizes: Sequence[int], seed: int
) -> Iterator[PreferencePair]:
    """Give the pairs of all sources one by one, evenly mixed and as often as their weights say."""
    streams = (
        _with_places(_repeated(source, seed), number, source.weight * size)
        for number, (source, size) in enumerate(zip(sources, sizes, strict=True))
    )
    return (pair for _, pair in heapq.merge(*streams, key=lambda each: each[0]))


def _with_places(
    pairs: Iterator[PreferencePair], number: int, total: float
) -> Iterator[tuple[tuple[float, int], PreferencePair]]:
    """Say where in an epoch each pair comes, from 0 to 1."""
    return (((place / total, number), pair) for place, pair in enumerate(pairs))


def _repeated(source: PairSource, seed: int) -> Iterator[PreferencePair]:
    """Give each pair as often as the weight says; a fraction of them by a hash of their number."""
    whole = int(source.weight)
    for _ in range(whole):
        yield from iterate_source(source)
    extra = (source.weight - whole) * 2**31  # seeds are below
    if extra:
        for number, pair in enumerate(iterate_source(source)):
            if derive_seed("weight", seed, number) < extra:
                yield pair


def iterate_source(source: PairSource) -> Iterator[PreferencePair]:
    """Give the pairs of a source one by one, holding only a few.

    Raises:
        DataError: The source is missing, or a row is not a pair.
        ConfigError: It has not the part that is asked for.
    """
    path, part = Path(source.path), source.part
    if _is_own(path):
        return iterate_pairs(path)
    return foreign_pairs(read_rows(path, streaming=True, part=part), repr(str(path)))


def _read(source: PairSource) -> PairSet:
    path, part = Path(source.path), source.part
    if _is_own(path):
        return read_pairs(path)
    pairs = tuple(foreign_pairs(read_rows(path, part=part), repr(str(path))))
    if not pairs:
        raise DataError(f"{str(path)!r} has no pairs; give a file with at least one")
    return PairSet(pairs=pairs, card=_foreign_card(path, pairs))


def _is_own(path: Path) -> bool:
    return path.is_dir() or not _is_foreign(path)


def _is_foreign(path: Path) -> bool:
    """Return whether a path is a data file or has the form of a hub id."""
    return path.suffix in _FILES or (
        not path.is_absolute() and len(path.parts) == 2 and not path.parent.exists()
    )


def _foreign_card(path: Path, pairs: Iterable[PreferencePair]) -> PairCard:
    """Say what is known; the tasks are named by a hash of their first messages."""
    digest = hashlib.sha256()
    tasks: set[str] = set()
    trees: set[str] = set()
    depths: Counter[int] = Counter()
    for pair in pairs:
        digest.update(repr((pair.prompt, pair.chosen, pair.rejected)).encode())
        tasks.add(pair.task_id)
        trees.add(pair.tree_id)
        depths[pair.depth] += 1
    return PairCard(
        schema_version=PAIR_SCHEMA_VERSION,
        pairs_hash=digest.hexdigest(),
        rule={"name": "foreign"},
        environment={"name": path.name},
        policy={},
        search={},
        prompt={},
        seed=0,
        task_ids=sorted(tasks),
        num_trees=len(trees),
        num_pairs=depths.total(),
        pairs_by_depth={str(depth): count for depth, count in depths.items()},
    )


def _joined(cards: Sequence[PairCard], num_pairs: int) -> PairCard:
    """Return the card of a mixture: the first one's, with the tasks of all."""
    together = hashlib.sha256(" ".join(card.pairs_hash for card in cards).encode())
    return replace(
        cards[0],
        pairs_hash=together.hexdigest(),
        rule={"name": "mixture", "of": [dict(card.rule) for card in cards]},
        environment={"name": "mixture", "of": [dict(card.environment) for card in cards]},
        task_ids=sorted({task for card in cards for task in card.task_ids}),
        num_trees=sum(card.num_trees for card in cards),
        num_pairs=num_pairs,
        removed={f"see the parts' {CARD_FILE}": sum(sum(c.removed.values()) for c in cards)},
    )

"""Where pairs come from: our own folders, files and hub sets in foreign formats, and mixtures."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lit_qagent.core.errors import ConfigError, DataError
from lit_qagent.core.pairs import CARD_FILE, PAIR_SCHEMA_VERSION, PairCard, PreferencePair
from lit_qagent.core.seeds import derive_seed
from lit_qagent.data.foreign import foreign_pairs, read_rows
from lit_qagent.data.pairs import PairSet, read_pairs

_FILES = (".json", ".jsonl", ".parquet")


@dataclass(frozen=True, kw_only=True)
class PairSource:
    """Pairs and how often each is used in an epoch.

    Attributes:
        path: Folder that ``data_collection pairs`` wrote; a ``.json``, ``.jsonl`` or ``.parquet``
            file in TRL's preference formats or the original's; or a hub id.
        weight: Times that each pair is used in an epoch, above 0; 0.5 takes every other pair.
    """

    path: Path
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ConfigError(f"data.pairs weight of {self.path} must be > 0, got {self.weight}")


def read_sources(sources: Sequence[PairSource], seed: int) -> PairSet:
    """Read, check and mix pairs.

    Raises:
        DataError: A source is missing or cannot be used.
        ConfigError: There is none.
    """
    if not sources:
        raise ConfigError("data.pairs names no source; give a folder, a file or a hub id")
    found = [(source, _read(Path(source.path))) for source in sources]
    if len(found) == 1 and sources[0].weight == 1:
        return found[0][1]
    pairs = [pair for source, part in found for pair in weighted(part.pairs, source.weight, seed)]
    return PairSet(pairs=tuple(pairs), card=_joined([part.card for _, part in found], pairs))


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


def _read(path: Path) -> PairSet:
    if path.is_dir() or not _is_foreign(path):
        return read_pairs(path)
    pairs = tuple(foreign_pairs(read_rows(path), repr(str(path))))
    if not pairs:
        raise DataError(f"{str(path)!r} has no pairs; give a file with at least one")
    return PairSet(pairs=pairs, card=_foreign_card(path, pairs))


def _is_foreign(path: Path) -> bool:
    """Return whether a path is a data file or has the form of a hub id."""
    return path.suffix in _FILES or (
        not path.is_absolute() and len(path.parts) == 2 and not path.parent.exists()
    )


def _foreign_card(path: Path, pairs: Sequence[PreferencePair]) -> PairCard:
    """Say what is known; the tasks are named by a hash of their first messages."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(repr((pair.prompt, pair.chosen, pair.rejected)).encode())
    return PairCard(
        schema_version=PAIR_SCHEMA_VERSION,
        pairs_hash=digest.hexdigest(),
        rule={"name": "foreign"},
        environment={"name": path.name},
        policy={},
        search={},
        prompt={},
        seed=0,
        task_ids=sorted({pair.task_id for pair in pairs}),
        num_trees=len({pair.tree_id for pair in pairs}),
        num_pairs=len(pairs),
        pairs_by_depth={str(d): n for d, n in Counter(pair.depth for pair in pairs).items()},
    )


def _joined(cards: Sequence[PairCard], pairs: Sequence[PreferencePair]) -> PairCard:
    """Return the card of a mixture: the first one's, with the tasks of all."""
    together = hashlib.sha256(" ".join(card.pairs_hash for card in cards).encode())
    return replace(
        cards[0],
        pairs_hash=together.hexdigest(),
        rule={"name": "mixture", "of": [dict(card.rule) for card in cards]},
        environment={"name": "mixture", "of": [dict(card.environment) for card in cards]},
        task_ids=sorted({task for card in cards for task in card.task_ids}),
        num_trees=sum(card.num_trees for card in cards),
        num_pairs=len(pairs),
        removed={f"see the parts' {CARD_FILE}": sum(sum(c.removed.values()) for c in cards)},
    )

"""Further held-out sets of pairs: read, kept apart from what is trained on, rendered."""

import logging
from collections.abc import Container, Iterable
from pathlib import Path

from lit_qagent.core.errors import ConfigError, DataError, OverlapError
from lit_qagent.core.pairs import PreferencePair
from lit_qagent.data.batch import PairTokens
from lit_qagent.data.rendered import TooLong, render_pairs
from lit_qagent.data.rendering import SequenceRenderer
from lit_qagent.data.sources import PairSource, read_sources

_log = logging.getLogger(__name__)
TaskKey = tuple[str, str]
"""World and task: two worlds may use the same ids."""


def task_key(pair: PreferencePair) -> TaskKey:
    """Return whose task the pair is of."""
    return pair.environment, pair.task_id


def check_names(also: Iterable[str]) -> None:
    """Refuse names that could be taken for something else in a metric's name.

    Raises:
        ConfigError: One is no identifier, or is that of a split.
    """
    for name in also:
        if not name.isidentifier() or name in ("train", "valid", "test"):
            raise ConfigError(
                "names of data.also must be letters, digits and underscores and none of train, "
                f"valid, test, got {name!r}"
            )


def read_held_out(
    name: str, pairs: Path | PairSource, trained: Container[TaskKey], seed: int
) -> list[PreferencePair]:
    """Read a set that must not hold what is trained on.

    Args:
        name: Of the set.
        pairs: Where they are.
        trained: The tasks that are trained on.
        seed: As for ``data.pairs``.

    Raises:
        OverlapError: A task of the set is trained on.
        DataError: The pairs cannot be used.
    """
    source = pairs if isinstance(pairs, PairSource) else PairSource(path=pairs)
    found = list(read_sources([source], seed).pairs)
    shared = sorted({pair.task_id for pair in found if task_key(pair) in trained})
    if shared:
        raise OverlapError(
            f"data.also.{name}: {len(shared)} of its tasks are trained on, such as "
            f"{shared[0]!r}; give pairs of other tasks"
        )
    return found


def render_held_out(
    name: str,
    pairs: list[PreferencePair],
    renderer: SequenceRenderer,
    too_long: TooLong,
) -> list[PairTokens]:
    """Return the token ids of a set's pairs; what was dropped as too long is counted and said.

    Raises:
        DataError: Pairs are too long and shall not be dropped, or none is left.
    """
    rendered = render_pairs(pairs, renderer, name=f"data.also.{name}", too_long=too_long)
    found = [tokens for _, tokens in rendered]
    _log.info("pairs of %s: %d, %d too long", name, len(found), len(pairs) - len(found))
    if not found:
        raise DataError(
            f"data.also.{name}: all {len(pairs)} pairs are longer than {renderer.max_length} "
            "tokens; raise model.max_length, or give shorter ones"
        )
    return found

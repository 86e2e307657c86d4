"""A preference pair as token ids."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Literal

from lit_qagent.core.errors import ContextOverflow, DataError
from lit_qagent.core.pairs import PreferencePair
from lit_qagent.core.seeds import derive_seed
from lit_qagent.data.batch import PairTokens
from lit_qagent.data.pairs import pair_history
from lit_qagent.data.rendering import SequenceRenderer

_log = logging.getLogger(__name__)
TooLong = Literal["error", "drop"]
"""What becomes of pairs that are longer than the context even without any earlier step."""


class SameTokensError(DataError):
    """Both actions of a pair have the same tokens."""


def render_pair(pair: PreferencePair, renderer: SequenceRenderer) -> PairTokens | None:
    """Return the token ids of a pair, or None (counted) if it is longer than the context.

    Raises:
        SameTokensError: Both actions have the same tokens, so there is nothing to learn.
        DataError: One has no tokens of its own, or the history is not what the pair says.
    """
    sides = [[message["content"] for message in side] for side in (pair.chosen, pair.rejected)]
    try:
        chosen, rejected = renderer.render_episodes(pair_history(pair), sides)
    except ContextOverflow:
        return None
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if len(side.action_ids) <= renderer.chat.num_end_tokens:
            raise DataError(
                f"the {name} action of task {pair.task_id!r} at depth {pair.depth} has no tokens: "
                "the tokenizer drops all of its text, so its labels are masked to nothing; remove "
                "the pair, or use a model whose tokenizer knows its characters"
            )
    if chosen.action_ids == rejected.action_ids:
        raise SameTokensError(
            f"chosen and rejected of task {pair.task_id!r} at depth {pair.depth} have the same "
            f"tokens ({sides[0][0][:80]!r}); remove the pair"
        )
    return PairTokens(
        chosen=chosen,
        rejected=rejected,
        q_chosen=pair.q_chosen,
        q_rejected=pair.q_rejected,
        depth=pair.depth,
        visits=(pair.visits_chosen, pair.visits_rejected),
        group=derive_seed(pair.tree_id or pair.task_id),
        name=pair_name(pair),
    )


def render_pairs(
    pairs: Iterable[PreferencePair], renderer: SequenceRenderer, *, name: str, too_long: TooLong
) -> Iterator[tuple[PreferencePair, PairTokens]]:
    """Give the pairs that fit into the context, with their token ids.

    Args:
        pairs: What to render.
        renderer: Chat template, tokenizer and context limit.
        name: Of the set, for the error.
        too_long: Whether pairs that do not fit are an error, once all were seen.

    Raises:
        DataError: There were some, or a pair has nothing to learn from.
    """
    left_out = []
    for pair in pairs:
        tokens = render_pair(pair, renderer)
        if tokens is None:
            left_out.append(pair_name(pair))
        else:
            yield pair, tokens
    if left_out and too_long == "error":
        raise too_long_error(name, len(left_out), left_out[0], renderer.max_length)


def too_long_error(name: str, count: int, example: str, max_length: int) -> DataError:
    """Return what to raise for pairs of a set that are longer than the context."""
    return DataError(
        f"{count} pairs of {name} are longer than model.max_length ({max_length} tokens) even "
        f"without any earlier step, such as that of {example}; raise model.max_length, or leave "
        "them out with data.too_long: drop"
    )


def pair_name(pair: PreferencePair) -> str:
    """Return what a pair is called in messages."""
    return f"task {pair.task_id} tree {pair.tree_id} depth {pair.depth}"


def report_lengths(splits: Mapping[str, Sized], renderer: SequenceRenderer) -> None:
    """Say how many pairs each split has, and what the context limit has cost."""
    counts = renderer.counts
    _log.info("pairs: %s", ", ".join(f"{len(p)} {name}" for name, p in splits.items()))
    if counts.shortened or counts.too_long:
        _log.warning(
            "context limit of %d tokens: %d pairs lost their oldest steps (%d steps), "
            "%d pairs were dropped as head and action alone are longer",
            renderer.max_length,
            counts.shortened,
            counts.dropped_steps,
            counts.too_long,
        )

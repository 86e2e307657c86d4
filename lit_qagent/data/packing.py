"""Token sequences that share prefixes, laid out so that every shared token is there once."""

from bisect import bisect, insort
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple


class PackedRow(NamedTuple):
    """Sequences as a prefix trie in depth-first order.

    A token sees itself and its ancestors: token ``k`` is visible to token ``q`` exactly if
    ``k <= q < visible_until[k]``.

    Attributes:
        token_ids: One id per trie node.
        position_ids: Depth of each node; equals the token's position in its own sequence.
        visible_until: End (exclusive) of each node's subtree.
        paths: For each sequence, in the order given, the row indices of its tokens.
    """

    token_ids: list[int]
    position_ids: list[int]
    visible_until: list[int]
    paths: list[list[int]]


def pack_row(sequences: Sequence[Sequence[int]]) -> PackedRow:
    """Pack sequences into one row; equal prefixes, wherever they end, are laid out once.

    Examples:
        >>> pack_row([[7, 8, 1, 2], [7, 8, 3]])._asdict()  # doctest: +NORMALIZE_WHITESPACE
        {'token_ids': [7, 8, 1, 2, 3], 'position_ids': [0, 1, 2, 3, 2],
         'visible_until': [5, 5, 4, 4, 5], 'paths': [[0, 1, 2, 3], [0, 1, 4]]}
    """
    row = PackedRow([], [], [], [[] for _ in sequences])
    path: list[int] = []
    previous: Sequence[int] = ()
    # Lexicographic order is a depth-first walk of the trie: neighbours share the most.
    for index in sorted(range(len(sequences)), key=lambda i: list(sequences[i])):
        sequence = sequences[index]
        shared = common_prefix(previous, sequence)
        _close(row, path[shared:])
        path = path[:shared]
        for position in range(shared, len(sequence)):
            path.append(len(row.token_ids))
            row.token_ids.append(sequence[position])
            row.position_ids.append(position)
            row.visible_until.append(0)
        row.paths[index] = list(path)
        previous = sequence
    _close(row, path)
    return row


def _close(row: PackedRow, nodes: Sequence[int]) -> None:
    """End the subtrees of nodes that no later token descends from."""
    for node in nodes:
        row.visible_until[node] = len(row.token_ids)


class PrefixRuns:
    """Counts the distinct prefixes of runs of groups, from common prefixes measured once.

    Args:
        groups: The sequences of each group.
    """

    def __init__(self, groups: Sequence[Sequence[list[int]]]) -> None:
        ordered = sorted((one, place) for place, group in enumerate(groups) for one in group)
        self._lengths = [len(one) for one, _ in ordered]
        self._shared = [common_prefix(a, b) for (a, _), (b, _) in pairwise(ordered)]
        self._ranks: list[list[int]] = [[] for _ in groups]
        for rank, (_, place) in enumerate(ordered):
            self._ranks[place].append(rank)

    def ending_at(self, end: int) -> Iterator[int]:
        """Yield the prefixes of ``groups[end - 1 : end]``, ``groups[end - 2 : end]`` and so on."""
        ranks: list[int] = []
        found = 0
        for place in range(end - 1, -1, -1):
            for rank in self._ranks[place]:
                found += self._num_new(rank, ranks)
                insort(ranks, rank)
            yield found

    def _num_new(self, rank: int, ranks: list[int]) -> int:
        """Return the prefixes of a sequence that none of those with the given ranks has.

        Two sequences share what all neighbours between them share; nobody shares more than those
        next to it.
        """
        place = bisect(ranks, rank)
        before = min(self._shared[ranks[place - 1] : rank]) if place else 0
        after = min(self._shared[rank : ranks[place]]) if place < len(ranks) else 0
        return self._lengths[rank] - max(before, after)


def common_prefix(left: Sequence[object], right: Sequence[object]) -> int:
    """Return how many leading items two sequences have in common."""
    length = min(len(left), len(right))
    for position in range(length):
        if left[position] != right[position]:
            return position
    return length

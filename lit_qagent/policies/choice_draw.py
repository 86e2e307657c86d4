"""What of a draw among listed actions has to be sampled: only the tokens that tell them apart.

Tokens that all choices begin with are certain, and so are those that are left once a single choice
is. Leaving them out changes no probability; of a shop's buttons one token in six remains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import takewhile

TokenIds = Sequence[int]


@dataclass(frozen=True, kw_only=True)
class ChoiceDraw:
    """A draw among choices.

    Attributes:
        lead: The tokens that all choices begin with; they go behind the prompt.
        telling: For each choice the tokens that tell it from the others.
        stops: The tokens that end a draw.
    """

    lead: list[int]
    telling: list[list[int]]
    stops: list[int]

    def find(self, drawn: TokenIds) -> int | None:
        """Return the number of the choice that was drawn, or None if it is none of them."""
        tokens = list(drawn)
        return self.telling.index(tokens) if tokens in self.telling else None


def plan_draw(choices: Sequence[TokenIds]) -> ChoiceDraw:
    """Return what to sample; of equal choices only the first is ever found.

    Args:
        choices: Token ids of each choice, with the token that ends it, which is in none of them
            before; two different ones at least.

    Examples:
        >>> plan_draw([[5, 6, 2], [5, 7, 8, 2], [5, 6, 9, 2]]).telling
        [[6, 2], [7], [6, 9]]
    """
    every = [list(ids) for ids in choices]
    lead = every[0][: min(_num_shared(every[0], other) for other in every)]
    rests = [ids[len(lead) :] for ids in every]
    telling = [rest[: _telling_length(rest, rests)] for rest in rests]
    stops = {ids[-1] for ids in telling}
    inside = reduce(set.union, (set(ids[:-1]) for ids in telling), set[int]())
    if stops & inside:  # a token that ends one choice is within another: all are drawn to the end
        return ChoiceDraw(lead=lead, telling=rests, stops=sorted({ids[-1] for ids in rests}))
    return ChoiceDraw(lead=lead, telling=telling, stops=sorted(stops))


def _telling_length(ids: list[int], others: list[list[int]]) -> int:
    """Return how many tokens are needed before none of the others, if it differs, fits."""
    return 1 + max(_num_shared(ids, other) for other in others if other != ids)


def _num_shared(one: list[int], other: list[int]) -> int:
    """Return how many tokens both begin with."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

"""What a recording is made of: a request with its key, and its answer."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lit_qagent.core.records import Constraint, Message, Proposal, RequestCost, Sampling

_SHOWN_CHARACTERS = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a policy is asked; see `Policy.propose`."""

    messages: tuple[Message, ...]
    n: int
    sampling: Sampling
    constraint: Constraint | None
    seed: int | None

    @property
    def chat_key(self) -> str:
        """A hash of the messages alone."""
        return _hash([[message.role, message.content] for message in self.messages])

    @property
    def key(self) -> str:
        """A hash of everything."""
        constraint = asdict(self.constraint) if self.constraint else None
        return _hash([self.chat_key, self.n, asdict(self.sampling), constraint, self.seed])

    def describe(self) -> str:
        """Name the request in an error."""
        last = self.messages[-1].content if self.messages else ""
        shown = last if len(last) <= _SHOWN_CHARACTERS else "..." + last[-_SHOWN_CHARACTERS:]
        return (
            f"n={self.n}, seed={self.seed}, {self.sampling}, "
            f"{'with' if self.constraint else 'without'} a constraint, {len(self.messages)} "
            f"messages, the last {shown!r} (key {self.key})"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """An answer: proposals, or the words with which the prompt was found too long.

    Attributes:
        proposals: Empty if the prompt was too long.
        overflow: The words.
        states_cost: False for a recording of before policies stated what proposals have cost.
    """

    proposals: tuple[Proposal, ...] = ()
    overflow: str | None = None
    states_cost: bool = True

    def to(self, request: Request) -> list[Proposal]:
        """Return the proposals as an answer to their request."""
        if self.states_cost or request.sampling.temperature > 0:
            return list(self.proposals)
        # All n were one answer, which was generated once; that they were greedy is not in the file.
        first, *others = self.proposals
        return [first, *(replace(other, cost=RequestCost()) for other in others)]

    def to_json(self) -> dict[str, Any]:
        """Return the answer as JSON values."""
        if self.overflow is not None:
            return {"overflow": self.overflow}
        return {"proposals": [asdict(proposal) for proposal in self.proposals]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Recorded":
        """Read what `to_json` has made."""
        if "overflow" in record:
            return cls(overflow=str(record["overflow"]))
        listed = record["proposals"]
        if all("cost" in fields for fields in listed):
            return cls(proposals=tuple(_read_proposal(fields) for fields in listed))
        proposals = tuple(
            _read_proposal(_state_cost(fields, is_first=not number))
            for number, fields in enumerate(listed)
        )
        return cls(proposals=proposals, states_cost=False)


def _read_proposal(fields: Mapping[str, Any]) -> Proposal:
    return Proposal(**{**fields, "cost": RequestCost(**fields["cost"])})


def _state_cost(fields: Mapping[str, Any], *, is_first: bool) -> dict[str, Any]:
    """Return an old proposal with its cost, of which ``extra`` is what it took beyond a request."""
    rest = dict(fields)
    own = {
        "requests": int(is_first),
        "prompt_tokens": is_first * rest.pop("prompt_tokens"),
        "generated_tokens": rest["num_tokens"],
    }
    extra = rest.pop("extra")
    return rest | {"cost": {name: count + extra[name] for name, count in own.items()}}


def _hash(value: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]

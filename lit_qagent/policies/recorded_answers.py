"""What a recording is made of: a request with its key, and its answer."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lit_qagent.core.records import Constraint, ExtraCost, Message, Proposal, Sampling

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
    """An answer: proposals, or the words with which the prompt was found too long."""

    proposals: tuple[Proposal, ...] = ()
    overflow: str | None = None

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
        return cls(
            proposals=tuple(
                Proposal(**{**fields, "extra": ExtraCost(**fields["extra"])})
                for fields in record["proposals"]
            )
        )


def _hash(value: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]

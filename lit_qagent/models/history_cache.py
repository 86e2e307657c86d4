"""Keys and values of scored histories, kept so that an episode never computes a token twice."""

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from lit_qagent.data.packing import PackedRow
from lit_qagent.data.rendering import TokenSequence
from lit_qagent.models.cached_attention import LayerMemory

_Ids = np.ndarray[tuple[int], np.dtype[np.int64]]
_MAX_GONE = 1024  # prompts remembered after their keys and values are gone


class KeptHistory(NamedTuple):
    """The longest kept beginning of a prompt.

    Attributes:
        num_tokens: Its length; below that of the prompt.
        memories: Name of the pass -> its keys and values, with room for the rest.
    """

    num_tokens: int
    memories: dict[str, LayerMemory]


@dataclass(kw_only=True, slots=True)
class _Entry:
    """One scored history with its candidates, any of which may be executed next."""

    prompt: _Ids
    sequences: list[_Ids]
    paths: list[list[int]]
    memories: Mapping[str, LayerMemory]
    num_bytes: int

    def match(self, prompt: _Ids) -> tuple[int, int]:
        """Return the longest beginning shared with a prompt, and the sequence that has it."""
        shared = _common_prefix(self.prompt, prompt)
        if shared < len(self.prompt):
            return shared, 0
        lengths = [_common_prefix(sequence, prompt) for sequence in self.sequences]
        best = int(np.argmax(lengths))
        return lengths[best], best


class HistoryCache:
    """The histories used last, up to a number of bytes.

    Attributes:
        num_recomputed: Histories that were asked for again after they had gone for lack of room.

    Args:
        max_bytes: Most memory for keys and values; the one used longest ago goes first. With 0
            nothing is kept, so nothing goes.
        passes: Names of the passes a history is kept for.
    """

    def __init__(self, max_bytes: int, passes: Sequence[str]) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self.num_recomputed = 0
        self._passes = tuple(passes)
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._next_key = 0
        self._bytes_per_token = 0.0  # of all passes; known once a history was stored
        self._gone: deque[_Ids] = deque(maxlen=_MAX_GONE)

    def __len__(self) -> int:
        """Return the number of histories."""
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything, as after a change of the weights."""
        self._entries.clear()
        self._gone.clear()
        self.num_bytes = 0

    def find(self, prompt_ids: Sequence[int], num_tokens: int) -> KeptHistory:
        """Return the longest kept beginning of a prompt, without its last token.

        The last token has to be computed in any case: the first action token is read off it. A
        history that has gone on through one of its candidates is replaced by what goes on, so an
        episode takes up one place.

        Args:
            prompt_ids: The prompt.
            num_tokens: Tokens of the prompt and its candidates; room for them is made.
        """
        prompt = np.asarray(prompt_ids[:-1], dtype=np.int64)
        best_length, best_key, best_sequence = 0, -1, 0
        for key, entry in self._entries.items():
            length, sequence = entry.match(prompt)
            if length > best_length:
                best_length, best_key, best_sequence = length, key, sequence
        self._count_recomputed(prompt, best_length)
        if not best_length:
            return KeptHistory(0, {name: self._empty(num_tokens) for name in self._passes})
        entry = self._entries[best_key]
        nodes = torch.tensor(entry.paths[best_sequence][:best_length])
        num_new = num_tokens - best_length
        goes_on = best_length > len(entry.prompt)
        kept = {
            name: memory.select(nodes, num_new, consume=goes_on)
            for name, memory in entry.memories.items()
        }
        if goes_on:
            self._forget(best_key)
        else:
            self._entries.move_to_end(best_key)
        return KeptHistory(best_length, kept)

    def make_room(self, num_tokens: int) -> None:
        """Let histories go until those of a call fit in beside what stays.

        Args:
            num_tokens: Tokens of the call's histories and candidates, kept ones included.
        """
        self._shrink(self.max_bytes - num_tokens * self._bytes_per_token)

    def store(
        self,
        sequences: Sequence[TokenSequence],
        row: PackedRow,
        memories: Mapping[str, LayerMemory],
    ) -> None:
        """Keep a history and its candidates.

        Args:
            sequences: The history's prompt with each candidate.
            row: Their prefix trie.
            memories: Keys and values of all its nodes, for each pass.
        """
        entry = _Entry(
            prompt=np.asarray(sequences[0].prompt_ids, dtype=np.int64),
            sequences=[np.asarray(s.prompt_ids + s.action_ids, dtype=np.int64) for s in sequences],
            paths=row.paths,
            memories=memories,
            num_bytes=sum(memory.num_bytes for memory in memories.values()),
        )
        self._entries[self._next_key] = entry
        self._next_key += 1
        self.num_bytes += entry.num_bytes
        self._bytes_per_token = entry.num_bytes / len(row.token_ids)
        self._shrink(self.max_bytes)

    def _empty(self, num_tokens: int) -> LayerMemory:
        return LayerMemory(num_new=num_tokens)

    def _shrink(self, max_bytes: float) -> None:
        """Let the histories used longest ago go until the others keep to a size."""
        while self.num_bytes > max_bytes and self._entries:
            key, entry = next(iter(self._entries.items()))
            self._forget(key)
            if self.max_bytes:
                self._gone.append(entry.prompt[:-1].copy())

    def _count_recomputed(self, prompt: _Ids, kept_length: int) -> None:
        """Count a prompt that goes on from a history that is gone."""
        for number, gone in enumerate(self._gone):
            if kept_length < len(gone) == _common_prefix(gone, prompt):
                self.num_recomputed += 1
                del self._gone[number]
                return

    def _forget(self, key: int) -> None:
        self.num_bytes -= self._entries.pop(key).num_bytes


def _common_prefix(left: _Ids, right: _Ids) -> int:
    length = min(len(left), len(right))
    differing = left[:length] != right[:length]
    return int(differing.argmax()) if differing.any() else length

import asyncio
import io
from collections.abc import Sequence
from pathlib import Path

from data_collection.viewer.learned import TreeScorer
from lit_qagent.core.errors import ContextOverflow
from lit_qagent.core.records import History
from tests.data_collection.viewer.stores import SCRIPT, small_tree, write_store


class LengthScorer:
    """Values an action by its length, plus one for each step before it."""

    def __init__(self, *, max_steps: int = 9) -> None:
        self.max_steps = max_steps
        self.asked: list[tuple[str, ...]] = []

    async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
        self.asked.append(tuple(message.content for message in history.messages))
        if history.num_steps > self.max_steps:
            raise ContextOverflow("too long")
        return [len(each) + history.num_steps for each in candidates]


def test_siblings_are_scored_together_after_their_history(tmp_path: Path) -> None:
    (stored,) = write_store(tmp_path, [small_tree()]).trees()
    scorer = LengthScorer()
    stream = io.StringIO()
    values = asyncio.run(TreeScorer(scorer, 1, stream).score(stored))
    first = "Thought: go.\nAction: go[a]"
    assert values == [None, len(first), 5, 6, 9]
    head = (f"Rules. {SCRIPT}", "Spell.")
    assert scorer.asked == [head, (*head, first, "at a")]
    assert "scored trees 1/1 | actions 4 | " in stream.getvalue()


def test_what_is_too_long_has_no_value_and_is_counted(tmp_path: Path) -> None:
    (stored,) = write_store(tmp_path, [small_tree()]).trees()
    scorer = TreeScorer(LengthScorer(max_steps=0), 1, io.StringIO())
    values = asyncio.run(scorer.score(stored))
    assert values[3:] == [None, None]
    assert values[2] == 5
    assert scorer.num_too_long == 2

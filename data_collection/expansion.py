"""How the children of a leaf are proposed: at once, one after the other, or after a critique."""

from collections.abc import Awaitable, Callable, Mapping

from data_collection.asking import Asking, critique_note, siblings_note
from lit_qagent.core.actions import canonical_action
from lit_qagent.core.records import History, Observation

# Distinct actions in the order of their first proposal, and how often each was proposed.
Candidates = dict[str, int]
Expansion = Callable[[Asking, History, Observation, int], Awaitable[Candidates]]


async def propose_at_once(
    asking: Asking, history: History, observation: Observation, n: int
) -> Candidates:
    """Sample n actions in one request."""
    proposals = await asking.propose(history, observation, n, "expand", 0)
    return _count([proposal.text for proposal in proposals])


async def propose_conditionally(
    asking: Asking, history: History, observation: Observation, n: int
) -> Candidates:
    """Sample n actions one by one; each prompt shows the actions before it."""
    texts: list[str] = []
    for step in range(n):
        note = siblings_note(list(_count(texts))) if texts else ""
        [proposal, *_] = await asking.propose(
            history, observation, 1, "expand", step, note=note, without=texts
        )
        texts.append(proposal.text)
    return _count(texts)


async def propose_after_critique(
    asking: Asking, history: History, observation: Observation, n: int
) -> Candidates:
    """Sample n actions one by one; each prompt holds what speaks against the action before it.

    Where nothing was said against it, as the context is too short, it is not shown either.
    """
    texts: list[str] = []
    for step in range(n):
        note = ""
        if texts:
            critique = await asking.critique(history, texts[-1], step)
            note = critique_note(texts[-1], critique) if critique else ""
        [proposal, *_] = await asking.propose(
            history, observation, 1, "expand", step, note=note, without=texts[-1:]
        )
        texts.append(proposal.text)
    return _count(texts)


EXPANSIONS: Mapping[str, Expansion] = {
    "vanilla": propose_at_once,
    "conditional": propose_conditionally,
    "critique": propose_after_critique,
}


def _count(texts: list[str]) -> Candidates:
    """Count equal actions as one, under the text of the first."""
    first: dict[str, str] = {}
    counts: Candidates = {}
    for text in texts:
        shown = first.setdefault(canonical_action(text), text)
        counts[shown] = counts.get(shown, 0) + 1
    return counts

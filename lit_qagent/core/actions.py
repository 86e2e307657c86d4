"""From an agent's message to the command in it.

An action is one whole ReAct message (``Thought: ...`` and ``Action: ...``) or, for agents that do
not think aloud, the bare command. Colons and nested brackets in a command are kept whole.
"""

import re
from typing import NamedTuple

_ACTION_LINE = re.compile(r"^[ \t]*Action[ \t]*(?:\d+[ \t]*)?:[ \t]*(.*)$", re.MULTILINE)
_THOUGHT_LINE = re.compile(r"^\s*Thought\b", re.IGNORECASE)
_CALL = re.compile(r"^(\w+)\[(.*)\]$", re.DOTALL)


class Call(NamedTuple):
    """A command of the form ``verb[argument]``, the verb in lower case."""

    verb: str
    argument: str


def parse_command(action: str) -> str | None:
    r"""Return the command in an agent's message, or None if there is none.

    Examples:
        >>> parse_command("Thought: The label is a colon: odd.\nAction: Search[Alien: Isolation]")
        'Search[Alien: Isolation]'
        >>> parse_command("click[buy now]")
        'click[buy now]'
        >>> parse_command("Thought: no action follows") is None
        True
    """
    match = _ACTION_LINE.search(action)
    if match:
        return match.group(1).strip() or None
    if _THOUGHT_LINE.match(action):
        return None
    return action.strip() or None


def parse_call(command: str) -> Call | None:
    """Split ``verb[argument]``; None if the command has another form.

    Examples:
        >>> parse_call("Search[f[x] = 1: a study]")
        Call(verb='search', argument='f[x] = 1: a study')
    """
    match = _CALL.match(command.strip())
    return Call(match.group(1).lower(), match.group(2).strip()) if match else None


def canonical_action(action: str) -> str:
    """Return the form in which two equal actions are equal: white space folded, ends stripped.

    Examples:
        >>> canonical_action(" click[Buy  Now] ")
        'click[Buy Now]'
    """
    return " ".join(action.split())

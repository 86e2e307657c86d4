"""From an agent's message to the command in it.

An action is one whole ReAct message (``Thought: ...`` and ``Action: ...``) or, for agents that do
not think aloud, the bare command. Colons and nested brackets in a command are kept whole. What
models put around a command is forgiven: other case, numbers (``Action 3:``), Markdown, a missing
thought or label, text before and after, full-width signs, further actions (the first one counts).
"""

import re
from typing import NamedTuple

# Every repeat in front of something is bounded, so that no message, however long, takes more than
# linear time.
_MARKS = r"[ \t>*_#.)\d-]{0,20}"
_COLON = r"[ \t*_#.)\d]{0,20}[:\uff1a]"
_OPENING = r"[\[\uff3b\u3010]"
_VERB = rf"\w{{1,40}}[ \t]?{_OPENING}"
_ACTION = re.compile(
    # On a line of its own the label may stand before any command, within a line before a call.
    rf"^{_MARKS}action{_COLON}(.*)$|\baction{_COLON}[ \t*_`]{{0,8}}(?={_VERB})(.*)$",
    re.IGNORECASE | re.MULTILINE,
)
_FOLLOWING_LINE = re.compile(r"\s{0,8}(?:```\w{0,20}\s{1,4})?(.*)")
_OTHER_LABEL = re.compile(rf"{_MARKS}(?:thought|observation|action)\b", re.IGNORECASE)
_THOUGHT = re.compile(rf"\s*{_MARKS}thought\b", re.IGNORECASE)
_CALL_LINE = re.compile(rf"^[ \t>*`\"'-]{{0,8}}({_VERB}.*[\]\uff3d\u3011])", re.MULTILINE)
_CALL_START = re.compile(r"[\"'\u201c\u2018(]{0,3}(\w{1,40})[ \t]?([\[\uff3b\u3010])")
_BRACKET = re.compile(r"[\[\]]")
_WIDE_BRACKETS = str.maketrans("\uff3b\uff3d\u3010\u3011", "[][]")
_CALL = re.compile(r"^(\w+)[ \t]?\[(.*)\]$", re.DOTALL)
_END_OF_REASONING = "</think>"


class Call(NamedTuple):
    """A command of the form ``verb[argument]``, the verb in lower case."""

    verb: str
    argument: str


def parse_command(action: str) -> str | None:
    r"""Return the command in an agent's message, or None if there is none.

    Examples:
        >>> parse_command("Thought: The label is a colon: odd.\nAction: Search[Alien: Isolation]")
        'Search[Alien: Isolation]'
        >>> parse_command("**Action 2:** `Search[Alien]` and then I read on.")
        'Search[Alien]'
        >>> parse_command("click[buy now]")
        'click[buy now]'
        >>> parse_command("Thought: no action follows") is None
        True
    """
    text = action.rpartition(_END_OF_REASONING)[2]
    is_labelled = False
    begins_with_call = _CALL_START.match(_strip_marks(text))
    for match in _ACTION.finditer(text):
        if begins_with_call and match.group(1) is None:
            continue  # a label inside an argument or behind the first command
        command = _trim(match.group(1) or match.group(2) or "")
        command = command or _command_below(text, match.end())
        if command:
            return command
        is_labelled = True
    return None if is_labelled else _unlabelled(text)


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


def canonical_command(action: str) -> str:
    r"""Return the canonical form of the command in a message, of the whole text if it has none.

    Two messages of equal commands do the same in the world, whatever was thought before.

    Examples:
        >>> canonical_command("Thought: it is cheap.\nAction: click[Buy  Now]")
        'click[Buy Now]'
    """
    return canonical_action(parse_command(action) or action)


def _command_below(text: str, position: int) -> str:
    """Return the command in the line below a label that has nothing behind it."""
    match = _FOLLOWING_LINE.match(text, position)
    line = match.group(1) if match else ""
    return "" if _OTHER_LABEL.match(line) else _trim(line)


def _unlabelled(text: str) -> str | None:
    """Return the command of a message without a label: a call, else the whole message."""
    whole = _strip_marks(text)
    if not _CALL_START.match(whole):
        line = _CALL_LINE.search(text)
        if line:
            return _trim(line.group(1))
        if _THOUGHT.match(text):
            return None
    return _trim(whole) or None


def _trim(text: str) -> str:
    """Return a command without Markdown, and a call without what follows it."""
    text = _strip_marks(text)
    match = _CALL_START.match(text)
    if match is None:
        return text
    text = text[match.start(1) :]
    opening = match.start(2) - match.start(1)
    if text[opening] != "[":
        text = text.translate(_WIDE_BRACKETS)
    return text[: _end_of_call(text, opening)]


def _strip_marks(text: str) -> str:
    return text.strip().strip("*`_ \t").strip()


def _end_of_call(text: str, opening: int) -> int:
    """Return the position behind a call's closing bracket; unbalanced ones reach the last one."""
    depth = 0
    for bracket in _BRACKET.finditer(text, opening):
        depth += 1 if bracket.group() == "[" else -1
        if depth == 0:
            end = bracket.end()
            rest = text[end:].partition("\n")[0].rstrip()
            return end + len(rest) if rest.endswith("]") and "[" not in rest else end
    return text.rfind("]") + 1 or len(text)

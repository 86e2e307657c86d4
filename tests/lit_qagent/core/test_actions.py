import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_qagent.core.actions import (
    Call,
    canonical_action,
    canonical_command,
    parse_call,
    parse_command,
)


@pytest.mark.parametrize(
    ("message", "command"),
    [
        ("click[buy now]", "click[buy now]"),
        ("Thought: I know it.\nAction: Finish[yes]", "Finish[yes]"),
        ("Thought: two\nAction 3: Search[Ratio: a study]", "Search[Ratio: a study]"),
        ("Action: Search[f[x] and g[y]]", "Search[f[x] and g[y]]"),
        ("  Action:   Lookup[born]  \nObservation: made up", "Lookup[born]"),
        ("Thought: only a thought", None),
        ("Thought: x\nAction:", None),
        ("", None),
        ("   \n ", None),
        ("go north", "go north"),
        ("Thought: x\nAction: go north", "go north"),
    ],
)
def test_the_command_of_a_message_is_found_whole(message: str, command: str | None) -> None:
    assert parse_command(message) == command


@pytest.mark.parametrize(
    ("message", "command"),
    [
        ("thought: x\nACTION: Search[Vardholm]", "Search[Vardholm]"),
        ("**Thought:** x\n**Action:** Search[Vardholm]", "Search[Vardholm]"),
        ("### Action 2: **Search[Vardholm]**", "Search[Vardholm]"),
        ("1. Action: `Search[Vardholm]`", "Search[Vardholm]"),
        ("**Action:** `Search[Vardholm]` and then more", "Search[Vardholm]"),
        ('Action: "Search[Vardholm]"', "Search[Vardholm]"),
        ("Action: Search[Vardholm] to see the town.", "Search[Vardholm]"),
        ("Action: Search[Vardholm] (a [small] town)", "Search[Vardholm]"),
        ("Action: Search [Vardholm]", "Search [Vardholm]"),
        ("Action:\nSearch[Vardholm]", "Search[Vardholm]"),
        ("Action:\n```\nSearch[Vardholm]\n```", "Search[Vardholm]"),
        ("Action:\r\n\r\nSearch[Vardholm]\r\n", "Search[Vardholm]"),
        ("Thought: I look it up. Action: Search[Vardholm]", "Search[Vardholm]"),
        ("Thought: I look it up.\nSearch[Vardholm]", "Search[Vardholm]"),
        ("Sure, here you are:\nSearch[Vardholm]\nDone.", "Search[Vardholm]"),
        ("Search[Vardholm] is what I want", "Search[Vardholm]"),
        ("<think>Action: Finish[no]</think>\nAction: Search[Vardholm]", "Search[Vardholm]"),
        ("\u601d\u8003\nAction\uff1aSearch\uff3bVardholm\uff3d", "Search[Vardholm]"),
        ("Action: Search[Vardholm]\nObservation: x\nAction: Finish[y]", "Search[Vardholm]"),
        ("Thought: a. Action: Search[Vardholm]\nAction: Finish[y]", "Search[Vardholm]"),
        ("Action: Search[Vardholm], then Finish[y]", "Search[Vardholm]"),
        ("Action:\nAction: Search[Vardholm]", "Search[Vardholm]"),
        ("Search[a page says Action: Finish[y]]", "Search[a page says Action: Finish[y]]"),
        ("Search[Vardholm] Action: Finish[y]", "Search[Vardholm]"),
        ("Action:\nObservation: made up", None),
        ("Thought: the next Action: unknown", None),
        ("Action: Search[a]b]", "Search[a]b]"),
        ("Action: Search[a [b] and more", "Search[a [b]"),
        ("Action: Search[open", "Search[open"),
        ("Reaction: strong", "Reaction: strong"),
    ],
)
def test_what_models_put_around_a_command_is_forgiven(message: str, command: str | None) -> None:
    assert parse_command(message) == command


PIECES = st.sampled_from(
    [
        "Action",
        "action 3",
        "Thought",
        ":",
        "\uff1a",
        "[",
        "]",
        "\uff3b",
        "\n",
        " ",
        "**",
        "`",
        "Search",
    ]
)
MESSAGES = st.one_of(st.text(), st.lists(st.one_of(PIECES, st.text(max_size=3))).map("".join))


@given(MESSAGES)
def test_any_message_is_parsed_and_a_command_is_its_own_command(message: str) -> None:
    command = parse_command(message)
    assert command is None or command.strip()
    if command is not None and (call := parse_call(command)):
        assert parse_call(f"{call.verb}[{call.argument}]") == call


@given(
    verb=st.from_regex(r"[A-Za-z]{1,10}", fullmatch=True),
    argument=st.text(st.characters(exclude_characters="[]\n", exclude_categories=["Cs"])),
    thought=st.text(st.characters(exclude_characters="[]:\uff1a\n", exclude_categories=["Cs"])),
)
def test_a_well_formed_message_gives_its_call(verb: str, argument: str, thought: str) -> None:
    if "action" in thought.lower():
        return
    bare = f"{verb}[{argument.strip()}]"
    for message in (bare, f"Thought: {thought}\nAction: {bare}", f"ACTION 7: {bare} and so on"):
        command = parse_command(message)
        assert command == bare
        assert parse_call(bare) == Call(verb.lower(), argument.strip())


@pytest.mark.parametrize(
    "piece",
    ["Action", "Action:", "action: ", "[", "a[", "]", " ", "\n", "* ", "Action:\n", "x" * 9],
)
def test_megabytes_take_no_longer_than_they_are_long(piece: str) -> None:
    message = "Action " + piece * (1_000_000 // len(piece))
    began = time.process_time()
    for variant in (message, f"Thought: {message}", message + "Search[x]"):
        parse_call(parse_command(variant) or "")
    assert time.process_time() - began < 10  # a quadratic pattern needs hours


@pytest.mark.parametrize(
    ("command", "call"),
    [
        ("Search[Alien: Isolation]", Call("search", "Alien: Isolation")),
        ("Finish[a[b]c]", Call("finish", "a[b]c")),
        ("click[]", Call("click", "")),
        ("Search", None),
        ("go north", None),
        ("Search[open", None),
    ],
)
def test_verb_and_argument_keep_colons_and_inner_brackets(command: str, call: Call | None) -> None:
    assert parse_call(command) == call


def test_equal_actions_differ_in_white_space_only() -> None:
    assert canonical_action("Action:  click[Red]\n") == canonical_action("Action: click[Red]")
    assert canonical_action("click[Red]") != canonical_action("click[red]")


def test_equal_commands_have_one_canonical_form_whatever_is_around_them() -> None:
    message = "Thought: it fits.\n**Action:** `click[Buy  Now]`"
    assert canonical_command(message) == canonical_command("click[Buy Now]") == "click[Buy Now]"
    assert canonical_command("Thought: I give  up") == "Thought: I give up"

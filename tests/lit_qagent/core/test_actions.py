import pytest

from lit_qagent.core.actions import Call, canonical_action, parse_call, parse_command


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
    ],
)
def test_the_command_of_a_message_is_found_whole(message: str, command: str | None) -> None:
    assert parse_command(message) == command


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

"""Truncation leaves out whole oldest steps, never the action, and counts what it does."""

from pathlib import Path

import pytest

from lit_qagent.core.errors import ConfigError, ContextOverflow
from lit_qagent.core.records import History, Message, Role
from lit_qagent.data.rendering import SequenceRenderer
from lit_qagent.policies.chat import ChatRenderer, load_renderer
from tests.tiny_model import save_tiny_model

HEAD = (Message(role="system", content="Act."), Message(role="user", content="Open it."))
TURNS = tuple(
    message
    for step in range(3)
    for message in (
        Message(role="assistant", content=f"push[{step}]"),
        Message(role="user", content=f"Nothing {step}."),
    )
)
HISTORY = History(head=HEAD, turns=TURNS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def chat(model: Path) -> ChatRenderer:
    return load_renderer(str(model))


def test_all_actions_follow_the_same_prompt(chat: ChatRenderer) -> None:
    short, long = SequenceRenderer(chat, 500).render(HISTORY, ["go", "open[box]"])

    assert short.prompt_ids == long.prompt_ids == chat.prompt_ids(HISTORY.messages)
    assert chat.tokenizer.decode(short.action_ids) == "go<|im_end|>\n"
    assert chat.tokenizer.decode(long.action_ids) == "open[box]<|im_end|>\n"


def test_oldest_steps_are_dropped_whole_until_the_longest_action_fits(chat: ChatRenderer) -> None:
    two_steps = HISTORY.without_oldest_step()
    one_step = two_steps.without_oldest_step()
    action = "open[box]"
    limit = len(chat.prompt_ids(one_step.messages)) + len(chat.action_ids(action))
    renderer = SequenceRenderer(chat, limit)

    go, opened = renderer.render(HISTORY, ["go", action])

    assert opened.prompt_ids == go.prompt_ids == chat.prompt_ids(one_step.messages)
    assert opened.action_ids == chat.action_ids(action)
    assert len(opened.prompt_ids) + len(opened.action_ids) == limit
    counts = renderer.counts
    assert (counts.rendered, counts.shortened, counts.dropped_steps) == (1, 1, 2)


def test_one_token_more_drops_one_step_less(chat: ChatRenderer) -> None:
    limit = len(chat.prompt_ids(HISTORY.messages)) + len(chat.action_ids("go"))
    whole, shorter = SequenceRenderer(chat, limit), SequenceRenderer(chat, limit - 1)

    whole.render(HISTORY, ["go"])
    shorter.render(HISTORY, ["go"])

    assert whole.counts.dropped_steps == 0
    assert shorter.counts.dropped_steps == 1


def test_an_action_that_does_not_fit_is_refused_and_counted_never_cut(chat: ChatRenderer) -> None:
    head = History(head=HEAD)
    needed = len(chat.prompt_ids(head.messages)) + len(chat.action_ids("open[box]"))
    renderer = SequenceRenderer(chat, needed - 1)

    with pytest.raises(ContextOverflow, match=f"need {needed} tokens .* raise max_length"):
        renderer.render(HISTORY, ["open[box]"])

    assert renderer.counts.too_long == 1
    assert renderer.counts.rendered == 0


def test_markers_in_a_message_cannot_end_a_turn_and_are_counted(chat: ChatRenderer) -> None:
    renderer = SequenceRenderer(chat, 500)

    [sequence] = renderer.render(History(head=HEAD), ["go<|im_end|>"])

    assert sequence.action_ids.count(chat.tokenizer.eos_token_id) == 1
    assert renderer.counts.to_dict()["escaped_markers"] == 1


def test_a_limit_without_room_for_two_tokens_is_refused(chat: ChatRenderer) -> None:
    with pytest.raises(ConfigError, match=r"max_length must be >= 2 .* got 1"):
        SequenceRenderer(chat, 1)


EPISODE = ["open[box]", "It is empty.", "open[bag]", "A coin.", "take[coin]"]


def test_an_episode_is_the_whole_chat_and_only_its_actions_are_scored(chat: ChatRenderer) -> None:
    roles: list[Role] = ["assistant", "user", "assistant", "user"]
    said = [Message(role=r, content=text) for r, text in zip(roles, EPISODE, strict=False)]

    long, short = SequenceRenderer(chat, 800).render_episodes(HISTORY, [EPISODE, ["go"]])

    assert long.prompt_ids == short.prompt_ids == chat.prompt_ids(HISTORY.messages)
    before_last = chat.prompt_ids((*HISTORY.messages, *said))
    assert long.prompt_ids + long.action_ids == before_last + chat.action_ids("take[coin]")
    scored = [long.action_ids[place] for place in long.scored]
    assert chat.tokenizer.decode(scored) == (
        "open[box]<|im_end|>\nopen[bag]<|im_end|>\ntake[coin]<|im_end|>\n"
    )
    [first, second] = [chat.tokenizer.decode(long.action_ids[a:b]) for a, b in long.observed]
    assert first == "<|im_start|>user\nIt is empty.<|im_end|>\n<|im_start|>assistant\n"
    assert "A coin." in second
    assert (short.observed, short.scored) == ((), list(range(len(short.action_ids))))


def test_an_episode_is_never_cut(chat: ChatRenderer) -> None:
    [whole] = SequenceRenderer(chat, 800).render_episodes(History(head=HEAD), [EPISODE])
    needed = len(whole.prompt_ids) + len(whole.action_ids)
    renderer = SequenceRenderer(chat, needed)

    [fits] = renderer.render_episodes(HISTORY, [EPISODE])

    assert fits == whole
    assert renderer.counts.dropped_steps == HISTORY.num_steps
    with pytest.raises(ContextOverflow, match=f"need {needed} tokens"):
        SequenceRenderer(chat, needed - 1).render_episodes(HISTORY, [EPISODE])

import re

import pytest

from lit_qagent.agents.prompts import PromptSpec, action_constraint, extend_history, start_history
from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import Observation
from lit_qagent.environments.toy import ToyWorld


def test_the_chat_starts_with_rules_examples_and_task_and_grows_by_two_messages_a_step() -> None:
    world = ToyWorld()
    first = world.reset(world.tasks("train")[0])
    history = start_history(world, PromptSpec(num_examples=0, think=False))
    assert [message.role for message in history.messages] == ["system", "user"]
    assert history.head[-1].content == first.text
    assert world.instructions() in history.head[0].content
    assert first.admissible is not None
    step = world.step(first.admissible[0])
    longer = extend_history(history, step)
    assert longer.head == history.head
    assert [(m.role, m.content) for m in longer.turns] == [
        ("assistant", step.action),
        ("user", step.observation.text),
    ]


def test_more_examples_than_the_world_has_are_refused() -> None:
    world = ToyWorld()
    world.reset(world.tasks("train")[0])
    with pytest.raises(ConfigError, match="num_examples is 99"):
        start_history(world, PromptSpec(num_examples=99))


def test_listed_commands_become_choices_for_bare_commands() -> None:
    observation = Observation(text="", admissible=("go[1]", "go[2]"))
    constraint = action_constraint(observation, PromptSpec(think=False, constrain=True))
    assert constraint is not None
    assert constraint.choices == ("go[1]", "go[2]")
    assert action_constraint(observation, PromptSpec(think=False, constrain=False)) is None


def test_listed_commands_become_one_expression_with_thoughts() -> None:
    observation = Observation(text="", admissible=("go[1]", "a.b"))
    constraint = action_constraint(observation, PromptSpec(think=True, constrain=True))
    assert constraint is not None
    assert constraint.regex is not None
    assert re.fullmatch(constraint.regex, "Thought: left it is\nAction: go[1]")
    assert re.fullmatch(constraint.regex, "Thought: x\nAction: a.b")
    assert not re.fullmatch(constraint.regex, "Thought: x\nAction: aXb")
    assert not re.fullmatch(constraint.regex, "go[1]")


def test_a_world_without_list_or_pattern_leaves_actions_free() -> None:
    assert action_constraint(Observation(text=""), PromptSpec(constrain=True)) is None


def test_a_negative_number_of_examples_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_examples must be >= 0, got -1"):
        PromptSpec(num_examples=-1)

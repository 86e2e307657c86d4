"""How a world is shown to an LLM: one rendering for collecting, training and acting."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lit_qagent.core.actions import parse_command
from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import Constraint, History, Message, Observation, Step, Trajectory
from lit_qagent.environments.base import Environment

PROMPT_VERSION = "1"

_THINK = (
    "In each turn write two lines and then stop:\n"
    "Thought: one or two sentences on what to do next.\n"
    "Action: one command."
)
_ACT = "In each turn answer with one command and nothing else."
_NOTES = "Notes from your earlier attempts at this task:"
_THOUGHT_PATTERN = r"Thought: [^\n]{1,240}\nAction: "


@dataclass(frozen=True, kw_only=True)
class PromptSpec:
    """How the agent is asked.

    Attributes:
        think: True for ReAct messages (a thought and an action); False for bare commands.
        num_examples: Solved episodes shown before the task, as chat turns.
        constrain: Let the policy produce only what the world calls legal at that moment; small
            models need it, and every report says so.
    """

    think: bool = True
    num_examples: int = 1
    constrain: bool = False

    def __post_init__(self) -> None:
        if self.num_examples < 0:
            raise ConfigError(f"prompt.num_examples must be >= 0, got {self.num_examples}")


def differing_forms(
    spec: PromptSpec, then: Mapping[str, Any], *, when: str = "in training"
) -> list[str]:
    """Name what differs between how a Q-model was asked in training and how it would be asked now.

    Whether actions are constrained changes no prompt and is not compared.

    Args:
        spec: How the world is shown.
        then: The form in training, with its version; what it does not say passes.
        when: What it is called in the answer, if it is that of something other than training.
    """
    now = {"version": PROMPT_VERSION, **asdict(spec)}
    return [
        f"prompt.{name} {then[name]!r} {when}, {now[name]!r} now"
        for name in ("version", "think", "num_examples")
        if name in then and then[name] != now[name]
    ]


def start_history(environment: Environment, spec: PromptSpec) -> History:
    """Return the chat before the first action of an environment that was just reset.

    Raises:
        ConfigError: The world has fewer examples than asked for.
    """
    examples = environment.examples() if spec.num_examples else ()
    if spec.num_examples > len(examples):
        raise ConfigError(
            f"prompt.num_examples is {spec.num_examples}, "
            f"but {environment.name} has {len(examples)}; lower it"
        )
    rules = f"{environment.instructions()}\n{_THINK if spec.think else _ACT}"
    head = [Message(role="system", content=rules)]
    for example in examples[: spec.num_examples]:
        head += _example_messages(example, spec)
    head.append(Message(role="user", content=environment.observation.text))
    return History(head=tuple(head))


def extend_history(history: History, step: Step) -> History:
    """Return the chat with one more step in it."""
    turn = (
        Message(role="assistant", content=step.action),
        Message(role="user", content=step.observation.text),
    )
    return History(head=history.head, turns=history.turns + turn)


def add_notes(history: History, notes: Sequence[str]) -> History:
    """Return the chat with notes of earlier attempts behind the task; none leave it as it is."""
    if not notes:
        return history
    *before, task = history.head
    text = "\n".join([task.content, "", _NOTES, *(f"- {note}" for note in notes)])
    return History(head=(*before, Message(role=task.role, content=text)), turns=history.turns)


def action_constraint(observation: Observation, spec: PromptSpec) -> Constraint | None:
    """Return what the next action may look like, or None if it is free.

    A world that lists its legal commands gives choices, one that has a pattern gives an
    expression; with thoughts, both become one expression for the whole message.
    """
    if not spec.constrain:
        return None
    if observation.admissible and not spec.think:
        return Constraint(choices=observation.admissible, commands=observation.admissible)
    pattern = observation.pattern
    if observation.admissible:
        pattern = "|".join(re.escape(command) for command in observation.admissible)
    if pattern is None:
        return None
    return Constraint(
        regex=f"{_THOUGHT_PATTERN}({pattern})" if spec.think else pattern,
        commands=observation.admissible or (),
    )


def _example_messages(example: Trajectory, spec: PromptSpec) -> list[Message]:
    """Show a solved episode as chat turns, ending with its last action."""
    messages = [Message(role="user", content=example.first_observation.text)]
    for index, step in enumerate(example.steps):
        action = step.action if spec.think else parse_command(step.action) or step.action
        messages.append(Message(role="assistant", content=action))
        if index + 1 < len(example.steps):
            messages.append(Message(role="user", content=step.observation.text))
    return messages

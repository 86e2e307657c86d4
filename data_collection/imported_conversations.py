"""Reads pairs that are conversations, as the original trains on.

A file holds a list of them, or one a line; prompts begin with instructions, their acknowledgement
and the task::

    {"prompt": [{"from": "human" | "gpt", "value": "..."}, ...], "chosen": [...], "rejected": [...]}

What does not fit is an error that names the entry; nothing is left out in silence.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_collection.import_files import records_of, unlike
from data_collection.pair_draft import DrawnPair
from data_collection.tree_file import tree_id_of
from lit_qagent.core.errors import ConfigError
from lit_qagent.core.pairs import ChatMessages, PreferencePair

HEAD_MESSAGES = 3  # instructions, acknowledgement and task
_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


def read_conversations(path: Path, *, environment: str, head_messages: int) -> list[DrawnPair]:
    """Read pairs in the form of conversations; they carry no values, so 1 and 0 stand for them.

    A task is named by ``id`` if a pair has one, else by its text, the last message of the head.

    Args:
        path: The file.
        environment: Name of the world, for the labels.
        head_messages: How many messages of each prompt come before the first step taken, >= 1.

    Raises:
        DataError: The file cannot be read, or an entry is not in the form above.
        ConfigError: ``head_messages`` is below 1.
    """
    if head_messages < 1:
        raise ConfigError(f"head_messages must be >= 1, got {head_messages}; the task is one")
    pairs = []
    for number, record in enumerate(records_of(path), start=1):
        where = f"{path}, pair {number}"
        try:
            pairs.append(_pair_of(record, environment, head_messages))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise unlike(where, error) from error
    return pairs


def _pair_of(record: Mapping[str, Any], environment: str, head_messages: int) -> DrawnPair:
    prompt = _messages(record["prompt"])
    chosen, rejected = _messages(record["chosen"]), _messages(record["rejected"])
    if prompt[-1]["role"] == "assistant":
        raise ValueError("the prompt ends with the agent's own message")
    if chosen[0]["role"] != "assistant" or rejected[0]["role"] != "assistant":
        raise ValueError("chosen and rejected must begin with the agent's message")
    num_turns = len(prompt) - head_messages
    if num_turns < 0 or num_turns % 2:
        raise ValueError(
            f"{len(prompt)} prompt messages with {head_messages} before the first step leave no "
            "whole steps; set --head_messages"
        )
    task_id = str(record.get("id", prompt[head_messages - 1]["content"]))
    pair = PreferencePair(
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        task_id=task_id,
        tree_id=tree_id_of(task_id),
        depth=num_turns // 2,
        q_chosen=1.0,
        q_rejected=0.0,
        visits_chosen=0,
        visits_rejected=0,
        rule="imported",
        environment=environment,
        prompt_version="imported",
    )
    return DrawnPair(pair, is_chosen_valid=True, is_rejected_valid=True)


def _messages(turns: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> ChatMessages:
    listed = [turns] if isinstance(turns, Mapping) else list(turns)
    messages = []
    for turn in listed:
        if turn["from"] not in _ROLES:
            raise ValueError(f"'from' must be one of {', '.join(_ROLES)}, got {turn['from']!r}")
        if not isinstance(turn["value"], str):
            raise TypeError(f"'value' must be a text, got {type(turn['value']).__name__}")
        messages.append({"role": _ROLES[turn["from"]], "content": turn["value"]})
    if not messages:
        raise ValueError("a list of messages is empty")
    return messages

"""What the first lines of a report say of actions, policy and Q-model."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_HASH = re.compile(r"[0-9a-f]{64}")


def actions_text(settings: Mapping[str, Any]) -> str:
    """Say what kept the agents to legal actions, if anything did.

    Args:
        settings: The manifest of a results folder.
    """
    thoughts = "with thoughts" if settings["prompt"]["think"] else "without thoughts"
    if not settings["prompt"]["constrain"]:
        return f"free text, {thoughts}"
    tries = _tries(settings["policy"])
    if tries is not None:
        return f"asked for again up to {tries} times where the world did not allow them, {thoughts}"
    return (
        "constrained to what the world called legal at that moment, where it lists or describes "
        f"that, {thoughts}"
    )


def policy_text(policy: Mapping[str, Any]) -> str:
    """Say which policy proposes actions; one that wraps another comes before it."""
    return ", ".join(plain_values(each) for each in _wrapped(policy))


def cost_note(settings: Mapping[str, Any]) -> str:
    """Say what constraints save, which an agent without them would pay."""
    engines = [each.get("policy") for each in _wrapped(settings["policy"])]
    if not settings["prompt"]["constrain"] or "vllm" not in engines:
        return ""
    return (
        "The local engine is not asked where the world leaves a single action, and of listed "
        "actions it samples only the tokens that tell them apart: with free text, or through an "
        "API, n candidates cost n whole actions."
    )


def q_model_text(q_model: Mapping[str, Any]) -> str:
    """Say what the Q-model is, and whether its training tasks can be among the held-out ones.

    Args:
        q_model: Its part of the manifest; an overlap was refused before.
    """
    return f"{_overlap(q_model)}. {plain_values(q_model)}"


def plain_values(settings: Mapping[str, Any]) -> str:
    """Return the plain values of some settings; nested ones and hashes stand further below."""
    shown = dict(settings)
    shown |= {f"{shown.get('head')} {k}": v for k, v in shown.get("head_settings", {}).items()}
    return ", ".join(
        f"{key} {value}"
        for key, value in shown.items()
        if not isinstance(value, dict | list | tuple) and not _HASH.fullmatch(str(value))
    )


def hashes_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the values that are hashes, by name."""
    return {key: value for key, value in settings.items() if _HASH.fullmatch(str(value))}


def _overlap(q_model: Mapping[str, Any]) -> str:
    trained, nameless = (q_model.get(key) for key in ("trained_tasks", "nameless_tasks"))
    if trained is None:
        return "untrained, or its training tasks are unknown and no overlap check was possible"
    if not nameless:
        return f"trained on {trained} tasks, none of them among these"
    return (
        f"trained on {trained} tasks; {nameless} of them come from data without task ids, so that "
        "no overlap check was possible for these"
    )


def _tries(policy: Mapping[str, Any]) -> int | None:
    """Return how often a policy asks again, itself or one that it wraps; None if it does not."""
    return next((int(each["max_tries"]) for each in _wrapped(policy) if "max_tries" in each), None)


def _wrapped(policy: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield policy
    answers = policy.get("answers")  # settings of the other policy; a script's go by messages
    if isinstance(answers, Mapping) and isinstance(answers.get("policy"), str):
        yield from _wrapped(answers)

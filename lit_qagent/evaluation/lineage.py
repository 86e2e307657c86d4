"""What a Q-model was trained on, against what it is to be evaluated on."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from lit_qagent.agents.prompts import PromptSpec, differing_forms
from lit_qagent.core.errors import CheckpointError, OverlapError
from lit_qagent.core.pairs import NAMELESS
from lit_qagent.core.records import Task

_log = logging.getLogger(__name__)
_MAX_SHOWN = 80  # characters of a setting


def check_overlap(tasks: Sequence[Task], lineage: Mapping[str, Any]) -> None:
    """Refuse held-out tasks that the Q-model was trained on.

    Args:
        tasks: The tasks to play.
        lineage: ``task_ids`` holds the tasks the Q-model has seen.

    Raises:
        OverlapError: At least one task is in both.
    """
    trained = set(lineage.get("task_ids", ()))
    shared = [task.task_id for task in tasks if task.task_id in trained]
    if shared:
        raise OverlapError(
            f"{len(shared)} of {len(tasks)} held-out tasks were used to train the Q-model "
            f"({', '.join(shared)}); choose another tasks.split or tasks.first_task"
        )


def check_prompt(prompt: PromptSpec, lineage: Mapping[str, Any]) -> None:
    """Refuse a Q-model whose training prompts had another form than those it would score here.

    Args:
        prompt: How the world is shown.
        lineage: ``prompt`` holds the form in training, with its version; unknown ones pass.

    Raises:
        CheckpointError: The forms differ.
    """
    differing = differing_forms(prompt, lineage.get("prompt") or {})
    if differing:
        raise CheckpointError(
            f"the Q-model was trained on other prompts: {'; '.join(differing)}; set data.prompt "
            "as in training, or give a Q-model that was trained on such prompts"
        )


def report_other_world(environment: Mapping[str, Any], lineage: Mapping[str, Any]) -> None:
    """Say so if the Q-model was trained on another world, or on other pages of the same.

    That may be wanted, so it is not refused.

    Args:
        environment: `Environment.settings` now.
        lineage: ``environment`` holds those of training, of pairs from several folders in ``of``,
            where one like that of now is enough; without it nothing is said.
    """
    trained = lineage.get("environment")
    if not trained:
        return
    worlds = trained.get("of") or [trained]
    differing = min((differing_settings(environment, each) for each in worlds), key=len)
    if differing:
        _log.warning(
            "the Q-model was trained on another world than it is to act in: %s",
            "; ".join(differing),
        )


def differing_settings(
    environment: Mapping[str, Any], other: Mapping[str, Any], *, when: str = "in training"
) -> list[str]:
    """Name each setting in which another world differs from that of now.

    Args:
        environment: `Environment.settings` now.
        other: Those of the other world.
        when: What the other one is called.
    """
    now, then = (json.loads(json.dumps(settings)) for settings in (environment, other))
    return [
        f"{name} is {_brief(now.get(name))}, {when} it was {_brief(then.get(name))}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]


def _brief(value: Any) -> str:  # noqa: ANN401 (a JSON value)
    text = json.dumps(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def describe_lineage(lineage: Mapping[str, Any]) -> dict[str, Any]:
    """Return where the Q-model comes from, its task list as a count and everything as a hash.

    ``nameless_tasks`` counts those whose data did not say which task they are of, so that nobody
    can tell whether they are among others.
    """
    shown = {key: value for key, value in lineage.items() if key != "task_ids"}
    if "task_ids" in lineage:
        shown["trained_tasks"] = len(lineage["task_ids"])
        nameless = sum(task.startswith(NAMELESS) for task in lineage["task_ids"])
        if nameless:
            shown["nameless_tasks"] = nameless
    text = json.dumps(dict(lineage), sort_keys=True)
    return {**shown, "lineage_hash": hashlib.sha256(text.encode()).hexdigest()}

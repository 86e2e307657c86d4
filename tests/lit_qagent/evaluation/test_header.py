"""What the first lines of a report say."""

from typing import Any

import pytest

from lit_qagent.evaluation.header import (
    actions_text,
    cost_note,
    hashes_of,
    policy_text,
    q_model_text,
)
from lit_qagent.evaluation.lineage import describe_lineage
from lit_qagent.policies.scripted import ScriptedPolicy

VLLM = {"policy": "vllm", "model": "a-model"}
API = {"policy": "openai", "model": "another", "headers": {"x": 1}}
ASKING_AGAIN = {
    "policy": "recorded",
    "answers": {"policy": "reprompt", "max_tries": 2, "answers": API},
}


def settings(policy: dict[str, Any], *, constrain: bool, think: bool = False) -> dict[str, Any]:
    return {"policy": policy, "prompt": {"constrain": constrain, "think": think}}


@pytest.mark.parametrize(
    ("policy", "constrain", "said"),
    [
        (VLLM, False, "free text, with thoughts"),
        (ASKING_AGAIN, False, "free text, with thoughts"),
        (VLLM, True, "constrained to what the world called legal at that moment, where it lists"),
        (ASKING_AGAIN, True, "asked for again up to 2 times where the world did not allow them"),
    ],
)
def test_what_keeps_actions_legal_is_said_as_it_is(
    policy: dict[str, Any], constrain: bool, said: str
) -> None:
    assert said in actions_text(settings(policy, constrain=constrain, think=True))


def test_what_a_constraint_saves_is_said_of_a_local_engine_alone() -> None:
    assert "n candidates cost n whole actions" in cost_note(settings(VLLM, constrain=True))
    assert cost_note(settings(VLLM, constrain=False)) == ""
    assert cost_note(settings(ASKING_AGAIN, constrain=True)) == ""


def test_policies_that_wrap_others_are_named_from_the_outside_in() -> None:
    assert policy_text(ASKING_AGAIN) == (
        "policy recorded, policy reprompt, max_tries 2, policy openai, model another"
    )


def test_an_answer_table_is_no_policy_that_is_wrapped() -> None:
    # A script's answers go by messages, of which "policy" may be one.
    scripted = {"policy": "scripted", "mode": "table", "answers": {"policy": ["a"], "go": ["b"]}}
    assert policy_text(scripted) == "policy scripted, mode table"
    assert policy_text({"policy": "recorded", "answers": scripted}) == (
        "policy recorded, policy scripted, mode table"
    )
    assert policy_text(ScriptedPolicy().settings()) == "policy scripted, mode uniform, script None"


def test_the_q_model_goes_by_base_and_head_and_its_hashes_stand_apart() -> None:
    lineage = {
        "backbone": "base",
        "head": "implicit",
        "head_settings": {"beta": 0.1, "reduction": "mean"},
        "pairs_hash": "ab" * 32,
        "rule": {"name": "paper"},
        "task_ids": ["a", "b"],
    }

    q_model = describe_lineage(lineage)

    assert q_model_text(q_model) == (
        "trained on 2 tasks, none of them among these. backbone base, head implicit, "
        "trained_tasks 2, implicit beta 0.1, implicit reduction mean"
    )
    assert hashes_of(q_model).keys() == {"pairs_hash", "lineage_hash"}


def test_tasks_without_names_are_not_said_to_be_others() -> None:
    q_model = describe_lineage({"task_ids": ["webshop-1", "foreign-0000000007"]})

    text = q_model_text(q_model)

    assert text.startswith("trained on 2 tasks; 1 of them come from data without task ids")
    assert "none of them among these" not in text


def test_of_an_untrained_model_nothing_is_claimed() -> None:
    assert q_model_text(describe_lineage({})).startswith("untrained, or its training tasks are")

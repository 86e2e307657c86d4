"""What servers do not take, and the completions API."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser

from lit_qagent.core.errors import PolicyFailure
from lit_qagent.core.records import Sampling
from lit_qagent.policies.base import Policy
from lit_qagent.policies.openai import OpenAIPolicy
from lit_qagent.policies.plain_prompt import PlainTemplate
from tests.fault_server import (
    Answer,
    completion,
    fastchat_error,
    fault_server,
    openai_error,
    plain_completion,
)
from tests.openai_asking import CHAT, ask, waits

__all__ = ["waits"]  # the fixture acts on every test here


# --- what servers do not take -------------------------------------------------------------------


def test_a_model_that_wants_the_new_name_of_max_tokens_gets_it_from_then_on() -> None:
    refusal = openai_error(
        "Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead.",
        param="max_tokens",
        code="unsupported_parameter",
    )
    with fault_server([refusal, completion("a")]) as server:
        policy = OpenAIPolicy("a-model", base_url=server.base_url)

        async def run() -> None:
            for _ in range(2):
                await policy.propose(CHAT, 1, Sampling(max_tokens=9))
            await policy.close()

        asyncio.run(run())
        sent = [(r.get("max_tokens"), r.get("max_completion_tokens")) for r in server.requests]
        assert sent == [(9, None), (None, 9), (None, 9)]
        assert policy.endpoint.num_retries == 0


def test_several_requests_that_meet_the_same_refusal_all_go_on() -> None:
    refusal = openai_error("'max_tokens' is not supported, use 'max_completion_tokens'")
    with fault_server([replace(refusal, after=3)] * 3 + [completion("a")]) as server:
        policy = OpenAIPolicy("a-model", base_url=server.base_url)

        async def run() -> None:
            await asyncio.gather(*(policy.propose(CHAT, 1, Sampling()) for _ in range(3)))
            await policy.close()

        asyncio.run(run())
        assert len(server.requests) == 6


def test_stop_strings_and_seeds_can_be_done_without(caplog: pytest.LogCaptureFixture) -> None:
    answers = [
        openai_error("Unsupported parameter: 'stop' is not supported with this model."),
        openai_error("Extra inputs are not permitted", param="seed"),
        completion("one\nObs two"),
    ]
    proposals, server, policy = ask(answers, sampling=Sampling(stop=("\nObs",)), seed=3)
    assert [p.text for p in proposals] == ["one"]
    assert {"stop", "seed"}.isdisjoint(server.requests[-1])
    assert policy.dialect.dropped == {"stop", "seed"}
    assert "the server refuses 'stop'" in caplog.text


def test_a_temperature_that_a_model_refuses_is_left_out_only_where_that_means_the_same() -> None:
    refusal = openai_error(
        "Unsupported value: 'temperature' does not support 0.7 with this model.",
        param="temperature",
    )
    with pytest.raises(PolicyFailure, match="'temperature' does not support"):
        ask([refusal, completion("never")], sampling=Sampling(temperature=0.7))
    _, server, _ = ask([refusal, completion("a")], sampling=Sampling(temperature=1.0))
    assert "temperature" not in server.requests[-1]


@pytest.mark.parametrize(
    "refusal",
    [
        openai_error("max_tokens=5000 cannot be greater than max_model_len=2048", param="x"),
        openai_error("bad", param="max_tokens"),
        fastchat_error("Only a-model allowed now, your model b-model", 40301),
        fastchat_error("0 is less than the minimum of 1 - 'max_tokens'", 40302),
        fastchat_error("You exceeded your quota", 42902),
    ],
    ids=str,
)
def test_other_refusals_of_parameters_are_final(refusal: Answer) -> None:
    with pytest.raises(PolicyFailure, match=r"HTTP 400: .*check base_url"):
        ask([refusal, completion("never")])


def test_a_spent_quota_is_not_waited_for() -> None:
    body = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    with pytest.raises(PolicyFailure, match="the account's quota is spent"):
        ask([Answer(status=429, body=body), completion("never")])


# --- completions --------------------------------------------------------------------------------


def test_base_models_are_given_plain_text() -> None:
    proposals, server, policy = ask(
        [plain_completion("look\n### World\nnever", "go")],
        2,
        sampling=Sampling(stop=("END",)),
        api="completions",
    )
    assert [p.text for p in proposals] == ["look", "go"]
    [request] = server.requests
    assert request["path"] == "/v1/completions"
    assert request["prompt"] == "Be short.\n\n### World\nHello\n\n### Agent\n"
    assert request["stop"] == ["END", "\n###"]
    assert "messages" not in request
    assert policy.settings()["api"] == "completions"
    assert policy.settings()["template"]["opening"] == "### Agent\n"


def test_a_template_of_ones_own() -> None:
    template = PlainTemplate(
        system="{content}|",
        user="U:{content}|",
        assistant="A:{content}|",
        opening="A:",
        stop=("|",),
    )
    _, server, _ = ask([plain_completion("x")], api="completions", template=template)
    assert server.requests[0]["prompt"] == "Be short.|U:Hello|A:"


def test_an_answer_of_the_other_api_is_no_answer() -> None:
    with pytest.raises(PolicyFailure, match="an answer that is no completion"):
        ask([completion("a")], api="completions", max_retries=1)


def test_every_option_of_the_openai_policy_can_be_written_in_yaml() -> None:
    options: dict[str, Any] = {
        "model": "base",
        "api": "completions",
        "template": {"user": "World: {content}\n", "stop": ["\nWorld:"]},
        "requests_per_minute": 60,
        "tokens_per_minute": 90000,
    }
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--policy", type=Policy)
    written = yaml.safe_load(
        yaml.safe_dump(
            {"class_path": "lit_qagent.policies.openai.OpenAIPolicy", "init_args": options}
        )
    )
    policy = parser.instantiate(parser.parse_object({"policy": written})).policy
    assert isinstance(policy, OpenAIPolicy)
    assert policy.template == PlainTemplate(user="World: {content}\n", stop=("\nWorld:",))
    assert policy.endpoint.limit.requests_per_minute == 60
    assert policy.endpoint.limit.tokens_per_minute == 90000

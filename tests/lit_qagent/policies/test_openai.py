import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from lit_qagent.core.errors import ConfigError, ContextOverflow, PolicyFailure
from lit_qagent.core.records import Constraint, Sampling
from lit_qagent.policies.openai import OpenAIPolicy
from lit_qagent.policies.openai_answers import Api
from lit_qagent.policies.plain_prompt import PlainTemplate
from tests.fault_server import (
    Answer,
    completion,
    fastchat_error,
    fault_server,
    openai_error,
    plain_completion,
)
from tests.openai_asking import CHAT, KEY, ask, waits

__all__ = ["waits"]  # the fixture acts on every test here


def test_one_request_asks_for_n_with_everything_in_it() -> None:
    sampling = Sampling(temperature=0.7, top_p=0.9, max_tokens=16, stop=("\nObs",))
    proposals, server, policy = ask(
        [completion("one\nObs two", "three", "four", generated=10)], 3, sampling=sampling, seed=5
    )
    assert server.requests == [
        {
            "path": "/v1/chat/completions",
            "model": "a-model",
            "messages": [
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": "Hello"},
            ],
            "temperature": 0.7,
            "top_p": 0.9,
            "max_tokens": 16,
            "stop": ["\nObs"],
            "n": 3,
            "seed": 5,
        }
    ]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert [p.text for p in proposals] == ["one", "three", "four"]
    assert [p.num_tokens for p in proposals] == [4, 3, 3]
    assert policy.usage.to_dict() == {
        "requests": 1,
        "prompt_tokens": 7,
        "generated_tokens": 10,
    }


@pytest.mark.parametrize(
    ("api", "answer"), [("chat", completion), ("completions", plain_completion)]
)
def test_half_letters_in_an_answer_become_whole_ones(
    api: Api, answer: Callable[[str], Answer]
) -> None:
    # The JSON says "Nice \ud83d", which is no text that a file or a request can hold.
    [proposal], _, _ = ask([answer("Nice \ud83d")], api=api)
    assert proposal.text == "Nice \ufffd"


def test_an_answer_cut_here_was_not_cut_by_the_token_limit() -> None:
    body = completion("one\nObs two", "three").body
    for choice in body["choices"]:
        choice["finish_reason"] = "length"
    proposals, _, _ = ask([Answer(body=body)], 2, sampling=Sampling(stop=("\nObs",)))
    assert [(p.text, p.finish_reason) for p in proposals] == [("one", "stop"), ("three", "length")]


def test_missing_choices_are_asked_for_again_with_other_seeds() -> None:
    answers = [completion("a", "b"), completion("c", "d", "e")]
    proposals, server, policy = ask(answers, 4, seed=10)
    assert [p.text for p in proposals] == ["a", "b", "c", "d"]
    assert [(r["n"], r["seed"]) for r in server.requests] == [(4, 10), (2, 12)]
    assert policy.usage.requests == 2
    # A search that adds up the costs of its proposals must see both requests.
    assert [p.cost.requests for p in proposals] == [1, 0, 1, 0]
    assert [p.cost.prompt_tokens for p in proposals] == [7, 0, 7, 0]


def test_a_server_that_ignores_n_is_asked_n_times_at_once_from_then_on() -> None:
    with fault_server([replace(completion("a"), delay_s=0.5)]) as server:
        policy = OpenAIPolicy("a-model", base_url=server.base_url)

        async def run() -> None:
            for _ in range(2):
                assert len(await policy.propose(CHAT, 3, Sampling(), seed=5)) == 3
            await policy.close()

        asyncio.run(run())
        assert sorted((r["n"], r["seed"]) for r in server.requests) == [
            (1, 5),
            (1, 6),
            (1, 6),
            (1, 7),
            (1, 7),
            (3, 5),
        ]
        assert server.most_at_once == 3


def test_one_short_answer_of_a_server_that_knows_n_is_an_exception() -> None:
    answers = [completion("a", "b"), completion("c"), completion("d"), completion("e", "f")]
    with fault_server(answers) as server:
        policy = OpenAIPolicy("a-model", base_url=server.base_url)

        async def run() -> None:
            for _ in range(3):
                await policy.propose(CHAT, 2, Sampling())
            await policy.close()

        asyncio.run(run())
        assert [r["n"] for r in server.requests] == [2, 2, 1, 2]


def test_a_server_that_refuses_n_is_asked_n_times() -> None:
    refusal = openai_error("'n' : number must be at most 1")
    proposals, server, _ = ask([refusal, completion("a")], 3)
    assert [p.text for p in proposals] == ["a"] * 3
    assert [r["n"] for r in server.requests] == [3, 1, 1, 1]


def test_the_first_failure_of_several_requests_ends_the_others() -> None:
    refusal = Answer(status=404, body={"detail": "Not Found"})
    with pytest.raises(PolicyFailure, match="HTTP 404"):
        ask([completion("a"), refusal], 4)


def test_greedy_samples_are_one_answer() -> None:
    proposals, server, _ = ask([completion("a")], 3, sampling=Sampling(temperature=0))
    assert [p.text for p in proposals] == ["a", "a", "a"]
    assert [r["n"] for r in server.requests] == [1]


@pytest.mark.parametrize(
    "fault",
    [
        Answer(status=408),
        Answer(status=409),
        Answer(status=429),
        Answer(status=500, body="oops"),
        Answer(status=503),
        Answer(status=0),
        Answer(body=completion("half").body, cut=True),
        fastchat_error("Server disconnected", 50001),
        fastchat_error("No available worker", 50005),
        fastchat_error("Worker timeout", 50006),
        fastchat_error("overloaded", 42903),
        Answer(body="not json"),
        Answer(body=[1]),
        Answer(body={"choices": []}),
        Answer(body={"choices": [{"text": "of another API"}]}),
        Answer(body={"choices": [{"message": {"content": ["parts"]}}]}),
        Answer(body={"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": "x"}}),
        Answer(body={"error": "busy"}),
    ],
    ids=str,
)
def test_passing_faults_are_tried_again(fault: Answer, waits: list[float]) -> None:
    proposals, server, policy = ask([fault, fault, completion("fine")])
    assert [p.text for p in proposals] == ["fine"]
    assert len(server.requests) == 3
    assert policy.endpoint.num_retries == 2
    # Half a second doubled each time, of which at least half is waited.
    assert 0.25 <= waits[0] <= 0.5 <= waits[1] <= 1.0


def test_a_server_that_is_too_slow_is_tried_again() -> None:
    slow = Answer(delay_s=0.5)
    proposals, _, policy = ask([slow, completion("fine")], timeout_s=0.1)
    assert [p.text for p in proposals] == ["fine"]
    assert policy.endpoint.num_retries == 1


def test_a_server_that_drips_is_too_slow_too() -> None:
    drips = replace(completion("a long answer"), drip_s=0.02)
    proposals, _, policy = ask([drips, completion("fine")], timeout_s=0.2)
    assert [p.text for p in proposals] == ["fine"]
    assert policy.endpoint.num_retries == 1


def test_retry_after_is_honoured(waits: list[float]) -> None:
    later = datetime.now(UTC) + timedelta(seconds=60)
    answers = [
        Answer(status=429, headers={"Retry-After": "7"}),
        Answer(status=503, headers={"Retry-After": format_datetime(later, usegmt=True)}),
        Answer(status=503, headers={"Retry-After": "86400"}),
        Answer(status=503, headers={"Retry-After": "soon"}),
        completion("fine"),
    ]
    ask(answers)
    assert waits[0] == 7.0
    assert 50 < waits[1] <= 60
    assert waits[2] == pytest.approx(120)
    assert 2.0 <= waits[3] <= 4.0


def test_attempts_are_bounded() -> None:
    with pytest.raises(PolicyFailure, match=r"no answer in 3 attempts, the last: HTTP 500: oops"):
        ask([Answer(status=500, body="oops")], max_retries=2)


def test_a_lost_server_is_a_failure() -> None:
    with fault_server([completion("a")]) as server:
        url = server.base_url
    policy = OpenAIPolicy("a-model", base_url=url, max_retries=1)
    with pytest.raises(PolicyFailure, match="no answer in 2 attempts, the last: ConnectError"):
        asyncio.run(policy.propose(CHAT, 1, Sampling()))


@pytest.mark.parametrize("status", [400, 404, 422])
def test_other_refusals_are_final(status: int) -> None:
    refusal = Answer(status=status, body={"error": {"message": "no model a-model"}})
    with pytest.raises(PolicyFailure, match=rf"HTTP {status}: .*no model a-model.*check base_url"):
        ask([refusal, completion("never")])


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "This model's maximum context length is 2048 tokens."}},
        {"error": {"code": "context_length_exceeded", "message": "too long"}},
        {"error": {"type": "exceed_context_size_error", "message": "too long", "code": 400}},
        fastchat_error("This model's maximum context length is 8192 tokens.", 40303).body,
        fastchat_error("too long", 40303).body,
    ],
)
def test_a_prompt_that_is_too_long_is_an_overflow(body: dict[str, Any]) -> None:
    with pytest.raises(ContextOverflow, match="finds the prompt too long"):
        ask([Answer(status=400, body=body)])


def test_the_key_is_never_shown() -> None:
    refusal = Answer(status=401, body=f"Incorrect API key: {KEY}")
    with pytest.raises(PolicyFailure, match="environment variable OPENAI_API_KEY") as caught:
        ask([refusal])
    assert KEY not in str(caught.value)
    policy = OpenAIPolicy("a-model")
    assert KEY not in json.dumps(policy.settings()) + repr(policy) + repr(vars(policy))


def test_a_key_in_place_of_its_variable_is_refused_unshown() -> None:
    with pytest.raises(ConfigError, match="must be the name of an environment variable") as caught:
        OpenAIPolicy("a-model", api_key_env=KEY)
    assert KEY not in str(caught.value)


def test_a_key_that_no_header_can_carry_is_refused_unshown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nX-Other: 1")
    with pytest.raises(PolicyFailure, match="has characters that no key has") as caught:
        ask([completion("a")])
    assert KEY not in str(caught.value)


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    _, server, _ = ask([completion("a")])
    assert "Authorization" not in server.headers[0]


def test_constraints_need_a_server_that_knows_them() -> None:
    choices = Constraint(choices=("click[a]", "click[b]"))
    with pytest.raises(ConfigError, match=r"structured_outputs is false; set it true"):
        ask([completion("a")], constraint=choices)
    _, server, _ = ask([completion("a")], constraint=choices, structured_outputs=True)
    assert server.requests[0]["structured_outputs"] == {"choice": ["click[a]", "click[b]"]}
    regex = Constraint(regex="a|b")
    _, server, _ = ask([completion("a")], constraint=regex, structured_outputs=True)
    assert server.requests[0]["structured_outputs"] == {"regex": "a|b"}


def test_usage_that_is_not_reported_is_estimated_and_counted() -> None:
    proposals, _, policy = ask([completion("12345", "1234", generated=None)], 2)
    # Two tokens and one, at four characters each, shared equally.
    assert [p.num_tokens for p in proposals] == [2, 1]
    assert policy.num_estimated == 1
    assert policy.usage.generated_tokens == 3


def test_requests_in_flight_are_limited_and_loops_may_change() -> None:
    slow = Answer(body=completion("a").body, delay_s=0.02)
    with fault_server([slow]) as server:
        policy = OpenAIPolicy("a-model", base_url=server.base_url, max_concurrency=3)

        async def run() -> None:
            await asyncio.gather(*(policy.propose(CHAT, 1, Sampling()) for _ in range(12)))
            await policy.close()

        asyncio.run(run())
        asyncio.run(run())
        assert len(server.requests) == 24
        assert server.most_at_once <= 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "localhost:8000"}, "base_url must be an http"),
        ({"base_url": "http://me:secret@host/v1"}, "must not carry a name, a password"),
        ({"timeout_s": 0.0}, "timeout_s must be positive, got 0"),
        ({"max_retries": -1}, "max_retries must be >= 0, got -1"),
        ({"max_concurrency": 0}, "max_concurrency must be >= 1, got 0"),
        ({"requests_per_minute": 0}, "requests_per_minute must be >= 1, or null .* got 0"),
        ({"tokens_per_minute": -5}, "tokens_per_minute must be >= 1, or null .* got -5"),
        ({"api": "embeddings"}, "api must be one of chat, completions, got 'embeddings'"),
        ({"template": PlainTemplate()}, "template goes with api 'completions', got api 'chat'"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OpenAIPolicy("a-model", **options)


def test_n_of_zero_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ConfigError, match="n=0"):
        ask([completion("a")], 0)


def test_a_connection_is_closed_with_its_policy() -> None:
    async def run() -> httpx.AsyncClient:
        with fault_server([completion("a")]) as server:
            policy = OpenAIPolicy("a-model", base_url=server.base_url)
            await policy.propose(CHAT, 1, Sampling())
            connection = policy.endpoint._connection
            assert connection is not None
            await policy.close()
            return connection.client

    assert asyncio.run(run()).is_closed

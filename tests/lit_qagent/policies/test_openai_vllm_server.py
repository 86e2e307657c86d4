"""`OpenAIPolicy` against vLLM's own OpenAI-compatible server on this machine."""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from lit_qagent.core.errors import ContextOverflow, PolicyFailure
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling
from lit_qagent.policies.chat import load_renderer
from lit_qagent.policies.dtypes import resolve_dtype
from lit_qagent.policies.openai import OpenAIPolicy
from tests.server_process import end_all, free_port, server_process

pytestmark = pytest.mark.integration

CAPITAL = (
    Message(role="system", content="You answer in one short sentence."),
    Message(role="user", content="What is the capital of France?"),
)


@dataclass(frozen=True, kw_only=True)
class Server:
    base_url: str
    process: "Popen[bytes]"


@pytest.fixture(scope="module")
def server(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(smollm2), "--served-model-name", "smollm2"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", resolve_dtype("auto")]
    command += ["--max-model-len", "1024", "--max-num-seqs", "16", "--block-size", "32"]
    command += ["--enforce-eager", "--no-enable-chunked-prefill", "--disable-log-stats"]
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    with server_process(
        command,
        log=tmp_path_factory.mktemp("vllm") / "server.log",
        environment=environment,
        ready_url=f"http://127.0.0.1:{port}/health",
    ) as process:
        yield Server(base_url=f"http://127.0.0.1:{port}/v1", process=process)


def ask(
    server: Server,
    n: int = 1,
    sampling: Sampling | None = None,
    *,
    chat: tuple[Message, ...] = CAPITAL,
    constraint: Constraint | None = None,
    seed: int | None = None,
    **options: Any,  # noqa: ANN401 (the policy's own)
) -> tuple[list[Proposal], OpenAIPolicy]:
    policy = OpenAIPolicy(
        **{"model": "smollm2", "base_url": server.base_url, "api_key_env": "NO_KEY", **options}
    )

    async def run() -> list[Proposal]:
        try:
            return await policy.propose(
                chat, n, sampling or Sampling(max_tokens=12), constraint=constraint, seed=seed
            )
        finally:
            await policy.close()

    return asyncio.run(run()), policy


def test_an_answer_with_the_servers_own_counts(server: Server) -> None:
    proposals, policy = ask(server, 3, Sampling(temperature=0, max_tokens=20))
    assert [p.text for p in proposals] == ["The capital of France is Paris."] * 3
    assert (proposals[0].num_tokens, proposals[0].finish_reason) == (8, "stop")
    usage = policy.usage.to_dict()
    assert usage == {"requests": 1, "prompt_tokens": 28, "generated_tokens": 8}
    assert policy.num_estimated == 0


def test_n_samples_are_one_request_that_a_seed_repeats(server: Server) -> None:
    first, policy = ask(server, 4, seed=7)
    assert len({p.text for p in first}) > 1
    assert policy.usage.requests == 1
    assert policy.dialect.takes_n is True
    again, _ = ask(server, 4, seed=7)
    assert [p.text for p in again] == [p.text for p in first]


def test_a_base_models_prompt_goes_through_completions(server: Server, smollm2: Path) -> None:
    shown = (
        Message(role="user", content="2 + 2 = ?"),
        Message(role="assistant", content="4"),
        Message(role="user", content="3 + 3 = ?"),
    )
    proposals, policy = ask(
        server, 2, Sampling(temperature=0, max_tokens=40), chat=shown, api="completions"
    )
    tokenizer = load_renderer(str(smollm2)).tokenizer
    prompt = "### World\n2 + 2 = ?\n\n### Agent\n4\n\n### World\n3 + 3 = ?\n\n### Agent\n"
    assert policy.usage.prompt_tokens == len(tokenizer(prompt)["input_ids"])
    assert proposals[0].text == proposals[1].text  # one answer, which the first pays for
    # The model goes on with the next part, where the template's stop string ends it.
    assert proposals[0].finish_reason == "stop"
    assert "###" not in proposals[0].text


def test_choices_and_expressions_are_kept_to(server: Server) -> None:
    choices = ("click[red]", "click[blue]", "buy")
    sampling = Sampling(temperature=1.5, max_tokens=16)
    for constraint in (Constraint(choices=choices), Constraint(regex=r"click\[(red|blue)\]|buy")):
        proposals, _ = ask(
            server, 8, sampling, constraint=constraint, seed=1, structured_outputs=True
        )
        assert {p.text for p in proposals} <= set(choices)


def test_a_prompt_that_is_too_long_is_an_overflow(server: Server) -> None:
    chat = (Message(role="user", content="lamp " * 1100),)
    for api in ("chat", "completions"):
        with pytest.raises(ContextOverflow, match="maximum context length"):
            ask(server, chat=chat, api=api)


def test_what_can_never_work_fails_at_once(server: Server) -> None:
    with pytest.raises(PolicyFailure, match="HTTP 404"):
        ask(server, model="gpt-unknown")
    with pytest.raises(PolicyFailure, match="HTTP 404"):
        ask(server, base_url=server.base_url.replace("/v1", "/v9"))


def test_stop_strings_and_the_token_limit(server: Server) -> None:
    [stopped], _ = ask(server, 1, Sampling(temperature=0, stop=(" France",)))
    assert (stopped.text, stopped.finish_reason) == ("The capital of", "stop")
    [cut], _ = ask(server, 1, Sampling(temperature=0, max_tokens=3))
    assert (cut.text, cut.finish_reason, cut.num_tokens) == ("The capital of", "length", 3)


def test_many_requests_at_once_lose_nothing(server: Server) -> None:
    policy = OpenAIPolicy("smollm2", server.base_url, api_key_env="NO_KEY", max_concurrency=16)

    async def run() -> list[list[Proposal]]:
        try:
            return await asyncio.gather(
                *(policy.propose(CAPITAL, 2, Sampling(max_tokens=4), seed=i) for i in range(40))
            )
        finally:
            await policy.close()

    assert [len(proposals) for proposals in asyncio.run(run())] == [2] * 40
    assert policy.usage.requests == 40
    assert policy.endpoint.num_retries == 0


def test_a_server_that_dies_with_a_request_in_flight_is_a_failure(server: Server) -> None:
    """The last test: nobody is left to ask afterwards."""
    policy = OpenAIPolicy("smollm2", server.base_url, api_key_env="NO_KEY", max_retries=1)

    async def run() -> None:
        request = asyncio.create_task(policy.propose(CAPITAL, 4, Sampling(max_tokens=900)))
        await asyncio.sleep(1.0)
        end_all(server.process)
        try:
            await request
        finally:
            await policy.close()

    with pytest.raises(PolicyFailure, match=r"gave no answer in 2 attempts, the last: \w+Error"):
        asyncio.run(run())

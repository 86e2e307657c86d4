"""`OpenAIPolicy` against FastChat 0.2.36, the server of the original, in an environment of its own.

Set QAGENT_FASTCHAT_PYTHON to the Python of an environment that has it to skip the installation.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx
import pytest

from lit_qagent.core.errors import ContextOverflow, PolicyFailure
from lit_qagent.core.records import Message, Proposal, Sampling
from lit_qagent.policies.openai import OpenAIPolicy
from tests.server_process import end_all, free_port, server_process

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.network]

PACKAGES = ("torch==2.13.0", "fschat[model_worker]==0.2.36")
CAPITAL = (
    Message(role="system", content="You answer in one short sentence."),
    Message(role="user", content="What is the capital of France?"),
)


@dataclass(frozen=True, kw_only=True)
class FastChat:
    base_url: str
    worker: "Popen[bytes]"


def install(folder: Path) -> Path:
    """Make the environment and return its Python."""
    given = os.environ.get("QAGENT_FASTCHAT_PYTHON")
    if given:
        return Path(given)
    python = folder / "bin" / "python"
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    environment = dict(os.environ)
    if uv:  # uv does not read pip's variable
        environment.setdefault("UV_FIND_LINKS", os.environ.get("PIP_FIND_LINKS", ""))
        commands = [
            [uv, "venv", "-p", sys.executable, str(folder)],
            [uv, "pip", "install", "--python", str(python), *PACKAGES],
        ]
    else:
        commands = [
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", *PACKAGES],
        ]
    for command in commands:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"FastChat cannot be installed here: {done.stderr[-500:]}")
    return python


def mend_model(model: Path, folder: Path) -> Path:
    """Return a copy whose configuration FastChat can read: it expects a factor in every rope."""
    folder.mkdir()
    for path in model.iterdir():
        if path.name != "config.json":
            (folder / path.name).symlink_to(path)
    config = json.loads((model / "config.json").read_text())
    config["rope_parameters"] = {**(config.get("rope_parameters") or {}), "factor": 1.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def fastchat(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastChat]:
    folder = tmp_path_factory.mktemp("fastchat")
    serve = [str(install(folder / "environment")), "-m"]
    model = mend_model(smollm2, folder / "model")
    ports = [free_port() for _ in range(3)]
    controller, worker, api = (f"http://127.0.0.1:{port}" for port in ports)
    name_model = ["--worker-address", worker, "--model-path", str(model)]
    name_model += ["--model-names", "smollm2", "--device", "cpu", "--conv-template", "Yi-34b-chat"]
    ask_controller = ["--controller-address", controller]
    parts: list[tuple[str, str, list[str], str]] = [
        ("controller", controller, [], "openapi.json"),
        ("model_worker", worker, ask_controller + name_model, "openapi.json"),
        ("openai_api_server", api, ask_controller, "v1/models"),
    ]
    running: dict[str, Popen[bytes]] = {}
    with ExitStack() as stack:
        for (name, address, options, ready), port in zip(parts, ports, strict=True):
            where = ["--host", "127.0.0.1", "--port", str(port)]
            running[name] = stack.enter_context(
                server_process(
                    [*serve, f"fastchat.serve.{name}", *where, *options],
                    log=folder / f"{name}.log",
                    environment={"HF_HUB_OFFLINE": "1", "LOGDIR": str(folder / "logs")},
                    ready_url=f"{address}/{ready}",
                )
            )
        yield FastChat(base_url=f"{api}/v1", worker=running["model_worker"])


def ask(
    fastchat: FastChat,
    n: int = 1,
    sampling: Sampling | None = None,
    chat: tuple[Message, ...] = CAPITAL,
    **options: Any,  # noqa: ANN401 (the policy's own)
) -> tuple[list[Proposal], OpenAIPolicy]:
    options = {"model": "smollm2", "base_url": fastchat.base_url, "api_key_env": "NO_KEY"} | options
    policy = OpenAIPolicy(**options)

    async def run() -> list[Proposal]:
        try:
            return await policy.propose(chat, n, sampling or Sampling(max_tokens=12))
        finally:
            await policy.close()

    return asyncio.run(run()), policy


def test_n_samples_of_a_chat_are_one_request(fastchat: FastChat) -> None:
    proposals, policy = ask(fastchat, 3)
    assert len(proposals) == 3
    assert len({p.text for p in proposals}) > 1
    assert all(p.num_tokens > 0 for p in proposals)
    assert policy.usage.requests == 1
    assert policy.num_estimated == 0


def test_greedy_samples_and_stop_strings(fastchat: FastChat) -> None:
    [proposal], _ = ask(fastchat, 1, Sampling(temperature=0, max_tokens=20))
    assert "Paris" in proposal.text
    [cut], _ = ask(fastchat, 1, Sampling(temperature=0, max_tokens=20, stop=("Paris",)))
    assert cut.text == proposal.text[: proposal.text.index("Paris")]


def test_plain_text_goes_through_completions(fastchat: FastChat) -> None:
    proposals, policy = ask(fastchat, 2, Sampling(max_tokens=6), api="completions")
    assert len(proposals) == 2
    assert policy.usage.generated_tokens <= 12


def test_a_prompt_that_is_too_long_is_an_overflow(fastchat: FastChat) -> None:
    chat = (Message(role="user", content="lamp " * 9000),)
    with pytest.raises(ContextOverflow, match=r"40303|maximum context length"):
        ask(fastchat, chat=chat)


def test_an_unknown_model_fails_at_once(fastchat: FastChat) -> None:
    with pytest.raises(PolicyFailure, match=r"HTTP 4.*40301"):
        ask(fastchat, model="gpt-unknown")


def test_a_worker_that_dies_is_waited_for_and_then_a_failure(fastchat: FastChat) -> None:
    """The last test: nobody is left to answer afterwards."""
    policy = OpenAIPolicy(
        "smollm2", fastchat.base_url, api_key_env="NO_KEY", max_retries=2, timeout_s=60
    )

    async def run() -> None:
        request = asyncio.create_task(policy.propose(CAPITAL, 1, Sampling(max_tokens=400)))
        await asyncio.sleep(2.0)
        end_all(fastchat.worker)
        try:
            await request
        finally:
            await policy.close()

    with pytest.raises(PolicyFailure, match="gave no answer in 3 attempts"):
        asyncio.run(run())
    assert policy.endpoint.num_retries == 2
    assert httpx.get(f"{fastchat.base_url}/models").status_code == httpx.codes.OK

"""The engine's thread, with an engine that is scripted instead of vLLM's."""

import asyncio
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from lit_qagent.core.errors import PolicyFailure
from lit_qagent.policies import vllm_thread
from lit_qagent.policies.vllm_thread import ThreadEngine


@dataclass(frozen=True, kw_only=True)
class Output:
    request_id: str
    prompt: Any
    finished: bool = True


@dataclass
class ScriptedEngine:
    """Finishes every request after `steps` steps; prompts may ask for trouble."""

    steps: int = 2
    running: dict[str, int] = field(default_factory=dict)
    prompts: dict[str, Any] = field(default_factory=dict)
    aborted: list[str] = field(default_factory=list)
    num_shutdowns: int = 0

    def shutdown(self) -> None:
        self.num_shutdowns += 1

    def has_unfinished_requests(self) -> bool:
        return bool(self.running)

    def add_request(self, request_id: str, prompt: Any, params: Any) -> None:  # noqa: ANN401
        if params == "refuse":
            raise ValueError("no such thing")
        self.prompts[request_id] = prompt
        self.running[request_id] = 10**9 if params == "endless" else self.steps
        if params == "die":
            self.running[request_id] = -1

    def abort_request(self, ids: list[str]) -> None:
        for request_id in ids:
            del self.running[request_id]
            self.aborted.append(request_id)

    def step(self) -> list[Output]:
        outputs = []
        for request_id, left in list(self.running.items()):
            if left < 0:
                raise RuntimeError("out of luck")
            self.running[request_id] = left - 1
            if left == 1:
                del self.running[request_id]
                outputs.append(Output(request_id=request_id, prompt=self.prompts[request_id]))
        return outputs


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    engine = ScriptedEngine()
    monkeypatch.setattr(vllm_thread, "_build_llm_engine", lambda args: engine)
    monkeypatch.setattr(vllm_thread, "_end_llm_engine", lambda engine: engine.shutdown())
    vllm, exceptions = types.ModuleType("vllm"), types.ModuleType("vllm.exceptions")
    vllm.TokensPrompt = dict  # type: ignore[attr-defined]
    exceptions.VLLMClientError = type("VLLMClientError", (Exception,), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, "vllm.exceptions", exceptions)
    return engine


@pytest.fixture
def engine(scripted: ScriptedEngine) -> Iterator[ThreadEngine]:
    started = ThreadEngine({})
    started.started.result(5)
    yield started
    started.close()


def generate(engine: ThreadEngine, params: Any, prompt: list[int]) -> Any:  # noqa: ANN401
    return engine.generate(prompt, params)


def test_answers_go_to_those_who_asked_in_any_loop(engine: ThreadEngine) -> None:
    async def ask() -> list[Any]:
        return await asyncio.gather(*(generate(engine, None, [i]) for i in range(20)))

    for _ in range(2):
        outputs = asyncio.run(ask())
        assert [o.prompt for o in outputs] == [{"prompt_token_ids": [i]} for i in range(20)]


def test_a_refused_request_fails_alone(engine: ThreadEngine) -> None:
    async def ask() -> tuple[Any, Any]:
        return await asyncio.gather(
            generate(engine, "refuse", [1]), generate(engine, None, [2]), return_exceptions=True
        )

    refused, answered = asyncio.run(ask())
    assert isinstance(refused, PolicyFailure)
    assert str(refused) == "vLLM refused the request: no such thing"
    assert answered.prompt == {"prompt_token_ids": [2]}


def test_a_cancelled_task_ends_its_request(engine: ThreadEngine, scripted: ScriptedEngine) -> None:
    async def ask() -> None:
        task = asyncio.create_task(generate(engine, "endless", [1]))
        while not scripted.running:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while scripted.running:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(ask(), 5))
    assert len(scripted.aborted) == 1


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (lambda engine: generate(engine, "die", [2]), "engine died .RuntimeError: out of luck"),
        (lambda engine: asyncio.to_thread(engine.close), "closed while the request was in flight"),
    ],
    ids=["death", "close"],
)
def test_the_end_of_the_engine_reaches_everyone_and_later_requests(
    scripted: ScriptedEngine, end: Callable[[ThreadEngine], Any], message: str
) -> None:
    engine = ThreadEngine({})

    async def ask() -> list[Any]:
        waiting = [asyncio.create_task(generate(engine, "endless", [i])) for i in range(3)]
        while len(scripted.running) < 3:
            await asyncio.sleep(0)
        results = await asyncio.gather(*waiting, end(engine), return_exceptions=True)
        return results[:3]

    for error in asyncio.run(asyncio.wait_for(ask(), 5)):
        assert isinstance(error, PolicyFailure)
        with pytest.raises(PolicyFailure, match=message):
            raise error
    with pytest.raises(PolicyFailure, match=message):
        asyncio.run(generate(engine, None, [9]))
    engine.close()
    assert engine.is_dead is ("died" in message)
    assert scripted.num_shutdowns == 1


def test_a_start_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(args: object) -> None:
        raise OSError("no weights")

    monkeypatch.setattr(vllm_thread, "_build_llm_engine", fail)
    engine = ThreadEngine({})
    with pytest.raises(OSError, match="no weights"):
        engine.started.result(5)
    engine.close()
    assert not engine._thread.is_alive()

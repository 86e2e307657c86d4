"""What the engine of GPUs makes of vLLM's errors, without vLLM."""

import asyncio
import sys
import types
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from lit_qagent.core.errors import PolicyFailure
from lit_qagent.policies.vllm_loop import LoopEngine


class ServerError(Exception):
    pass


class Dead(ServerError):
    pass


class FakeEngine:
    """Fails as it is told to by the parameters of a request."""

    async def generate(
        self, prompt: object, params: object, request_id: str
    ) -> AsyncIterator[object]:
        if isinstance(params, Exception):
            raise params
        yield params

    def shutdown(self) -> None:
        return


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopEngine]:
    names = ("vllm", "vllm.exceptions", "vllm.v1", "vllm.v1.engine", "vllm.v1.engine.exceptions")
    fakes: dict[str, Any] = {name: types.ModuleType(name) for name in names}
    fakes["vllm"].TokensPrompt = dict
    fakes["vllm.exceptions"].VLLMClientError = type("VLLMClientError", (Exception,), {})
    fakes["vllm.exceptions"].VLLMServerError = ServerError
    fakes["vllm.v1.engine.exceptions"].EngineDeadError = Dead
    for name, fake in fakes.items():
        monkeypatch.setitem(sys.modules, name, fake)

    async def build(self: LoopEngine) -> FakeEngine:
        return FakeEngine()

    monkeypatch.setattr(LoopEngine, "_build", build)
    started = LoopEngine({})
    started.started.result(5)
    yield started
    started.close()


def _ask(engine: LoopEngine, params: Any) -> object:  # noqa: ANN401
    return asyncio.run(engine.generate([1], params))


def test_only_the_death_of_the_engine_is_its_end(engine: LoopEngine) -> None:
    with pytest.raises(PolicyFailure, match="vLLM failed the request: out of luck"):
        _ask(engine, ServerError("out of luck"))
    with pytest.raises(PolicyFailure, match="vLLM refused the request: no such thing"):
        _ask(engine, ValueError("no such thing"))
    assert not engine.is_dead
    assert _ask(engine, "fine") == "fine"
    with pytest.raises(PolicyFailure, match=r"the vLLM engine died \(core\)"):
        _ask(engine, Dead("core"))
    assert engine.is_dead

"""A vLLM engine in its own process, for GPUs, driven from an event loop in a thread."""

import asyncio
import itertools
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from lit_qagent.core.errors import PolicyFailure
from lit_qagent.policies.vllm_lora import lora_request

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

_CLOSED = "the vLLM engine was closed while the request was in flight"


class LoopEngine:
    """Talks to an ``AsyncLLM`` from an event loop in a daemon thread.

    Attributes:
        is_dead: See `vllm_engine.Engine`.

    Args:
        args: Of ``AsyncEngineArgs``.
        lora: Folder of an adapter that all requests go through.
    """

    def __init__(self, args: Mapping[str, Any], lora: str | None = None) -> None:
        self.started: Future[None] = Future()
        self.is_dead = False
        self._args = args
        self._lora = lora
        self._options: dict[str, Any] = {}  # what every request is added with
        self._numbers = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._engine: AsyncLLM | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="vllm", daemon=True)
        self._thread.start()

    async def generate(
        self, prompt_ids: Sequence[int], params: "SamplingParams"
    ) -> "RequestOutput":
        """See `vllm_engine.Engine`."""
        answer = self._generate(list(prompt_ids), params)
        try:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(answer, self._loop))
        except RuntimeError as error:
            answer.close()
            raise PolicyFailure(_CLOSED) from error

    def close(self) -> None:
        """See `vllm_engine.Engine`."""
        self._closing = True
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run(self) -> None:
        """Build the engine and run the loop until it is stopped."""
        try:
            self._engine = self._loop.run_until_complete(self._build())
        except BaseException as error:
            self.started.set_exception(error)
            self._loop.close()
            return
        self.started.set_result(None)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._end(self._engine))
            self._engine = None
            self._loop.close()

    async def _build(self) -> "AsyncLLM":
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**self._args))
        if self._lora is not None:
            request = lora_request(self._lora)
            try:  # now: one that is found wanting by a request would end the engine
                await engine.add_lora(request)
            except BaseException:
                engine.shutdown()
                raise
            self._options = {"lora_request": request}
        return engine

    async def _generate(self, prompt_ids: list[int], params: "SamplingParams") -> "RequestOutput":
        """Run one request in the engine's loop."""
        from vllm import TokensPrompt
        from vllm.exceptions import VLLMClientError, VLLMServerError
        from vllm.v1.engine.exceptions import EngineDeadError

        assert self._engine is not None
        output: RequestOutput | None = None
        try:
            request_id = f"request-{next(self._numbers)}"
            prompt = TokensPrompt(prompt_token_ids=prompt_ids)
            parts = self._engine.generate(prompt, params, request_id, **self._options)
            async for part in parts:
                output = part
        except (VLLMClientError, ValueError) as error:
            raise PolicyFailure(f"vLLM refused the request: {error}") from error
        except EngineDeadError as error:
            self.is_dead = True
            raise PolicyFailure(f"the vLLM engine died ({error})") from error
        except VLLMServerError as error:  # of this request alone
            raise PolicyFailure(f"vLLM failed the request: {error}") from error
        except asyncio.CancelledError:
            if self._closing:
                raise PolicyFailure(_CLOSED) from None
            raise
        if output is None:
            raise PolicyFailure("vLLM ended the request without an answer; start the run again")
        return output

    async def _end(self, engine: "AsyncLLM") -> None:
        """End the requests in flight, so that no caller waits for ever, and then the engine."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        engine.shutdown()
        await asyncio.sleep(0)  # it closes its sockets in a callback of this loop

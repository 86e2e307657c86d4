"""A vLLM engine in a thread of this process, for CPUs."""

import asyncio
import gc
import itertools
import queue
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from lit_qagent.core.errors import PolicyFailure
from lit_qagent.policies.vllm_lora import lora_request

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.v1.engine.llm_engine import LLMEngine

_CLOSED = "the vLLM engine was closed while the request was in flight"

_lock = threading.Lock()
_engines: "list[LLMEngine]" = []  # those of this process that run


@dataclass(frozen=True, kw_only=True)
class _Request:
    """One request on its way to the engine's thread."""

    request_id: str
    prompt_ids: list[int]
    params: "SamplingParams"
    answer: "Future[RequestOutput]"


class ThreadEngine:
    """Steps an ``LLMEngine`` in a daemon thread of this process.

    Attributes:
        is_dead: See `vllm_engine.Engine`.

    Args:
        args: Of ``EngineArgs``.
        lora: Folder of an adapter that all requests go through.
    """

    def __init__(self, args: Mapping[str, Any], lora: str | None = None) -> None:
        self.started: Future[None] = Future()
        self.is_dead = False
        self._args = args
        self._lora = lora
        self._options: dict[str, Any] = {}  # what every request is added with
        self._numbers = itertools.count()
        # A request to add, the id of one to abort, or None to end.
        self._inbox: queue.SimpleQueue[_Request | str | None] = queue.SimpleQueue()
        self._waiting: dict[str, Future[RequestOutput]] = {}
        self._end: str | None = None
        self._thread = threading.Thread(target=self._run, name="vllm", daemon=True)
        self._thread.start()

    async def generate(
        self, prompt_ids: Sequence[int], params: "SamplingParams"
    ) -> "RequestOutput":
        """See `vllm_engine.Engine`."""
        request = _Request(
            request_id=f"request-{next(self._numbers)}",
            prompt_ids=list(prompt_ids),
            params=params,
            answer=Future(),
        )
        request.answer.add_done_callback(
            lambda answer: self._inbox.put(request.request_id) if answer.cancelled() else None
        )
        self._inbox.put(request)
        if self._end is not None:  # it ended before it could see the request
            _fail([request.answer], self._end)
        return await asyncio.wrap_future(request.answer)

    def close(self) -> None:
        """See `vllm_engine.Engine`."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        """Build the engine, serve until told to end, and clean up."""
        try:
            engine = _build_llm_engine(self._args)
        except BaseException as error:
            self.started.set_exception(error)
            return
        end = _CLOSED
        try:
            self._load_adapter(engine)
            self.started.set_result(None)
            while self._take(engine):
                self._deliver(engine.step())
        except Exception as error:
            if not self.started.done():
                self.started.set_exception(error)
            end = f"the vLLM engine died ({type(error).__name__}: {error})"
            self.is_dead = True
        finally:
            self._end = end
            self._fail_all(end)
            _end_llm_engine(engine)
            del engine
            gc.collect()

    def _load_adapter(self, engine: "LLMEngine") -> None:
        """Load the adapter now: one that is found wanting by a request would end the engine."""
        if self._lora is not None:
            request = lora_request(self._lora)
            engine.add_lora(request)
            self._options = {"lora_request": request}

    def _take(self, engine: "LLMEngine") -> bool:
        """Hand what has arrived to the engine; False if it is to end. Blocks only when idle."""
        while True:
            try:
                item = self._inbox.get(block=not engine.has_unfinished_requests())
            except queue.Empty:
                return True
            if item is None:
                return False
            if isinstance(item, str):
                if self._waiting.pop(item, None) is not None:
                    engine.abort_request([item])
            else:
                self._add(engine, item)

    def _add(self, engine: "LLMEngine", request: _Request) -> None:
        """Add one request; one that vLLM refuses fails alone."""
        from vllm import TokensPrompt
        from vllm.exceptions import VLLMClientError

        prompt = TokensPrompt(prompt_token_ids=request.prompt_ids)
        try:
            engine.add_request(request.request_id, prompt, request.params, **self._options)
        except (VLLMClientError, ValueError) as error:
            _fail([request.answer], f"vLLM refused the request: {error}")
            return
        self._waiting[request.request_id] = request.answer

    def _deliver(self, outputs: "Iterable[RequestOutput]") -> None:
        """Answer the requests that have finished."""
        for output in outputs:
            if output.finished:
                answer = self._waiting.pop(output.request_id, None)
                if answer is not None and answer.set_running_or_notify_cancel():
                    answer.set_result(output)

    def _fail_all(self, reason: str) -> None:
        """Fail every request that is running or has not been looked at."""
        answers = list(self._waiting.values())
        while not self._inbox.empty():
            item = self._inbox.get()
            if isinstance(item, _Request):
                answers.append(item.answer)
        self._waiting.clear()
        _fail(answers, reason)


def _build_llm_engine(args: Mapping[str, Any]) -> "LLMEngine":
    """Build the engine of one process, and undo what vLLM does to the rest of the process."""
    import torch
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    _mend_llvmlite()
    set_num_threads = torch.set_num_threads
    try:
        engine = LLMEngine.from_engine_args(EngineArgs(**args))
    finally:
        torch.set_num_threads = set_num_threads
    with _lock:
        _engines.append(engine)
    return engine


@cache
def _mend_llvmlite() -> None:
    """Make numba's library wrapper answer only for the functions of its library.

    It poses as having every attribute, ``__dict__`` too. vLLM 0.32 looks at every imported object
    while an engine starts, and breaks on that one; BM25 search imports it, perhaps just then.
    """
    try:
        from llvmlite.binding import ffi  # type: ignore[import-untyped]
    except ImportError:
        return
    wrapper = type(ffi.lib)
    find_function = wrapper.__getattr__

    def find(self: Any, name: str) -> Any:  # noqa: ANN401 (a foreign function)
        if name.startswith("__"):
            raise AttributeError(name)
        return find_function(self, name)

    wrapper.__getattr__ = find


def _end_llm_engine(engine: "LLMEngine") -> None:
    """Free an engine without harm to the others of this process."""
    with _lock:
        _engines.remove(engine)
        if not _engines:
            engine.engine_core.shutdown()
            return
    # A whole shutdown would end the process groups that all engines of a process share.
    client = engine.engine_core
    client._finalizer.detach()
    client.engine_core.structured_output_manager.clear_backend()
    client.engine_core.model_executor.shutdown()
    client.engine_core.scheduler.shutdown()
    gc.unfreeze()


def _fail(answers: "Iterable[Future[RequestOutput]]", reason: str) -> None:
    """Give an error to those who still wait."""
    for answer in answers:
        try:
            answer.set_exception(PolicyFailure(reason))
        except InvalidStateError:  # cancelled, or answered by the engine's thread meanwhile
            continue

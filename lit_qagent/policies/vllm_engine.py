"""Runs a vLLM engine behind one small interface: in this process on CPUs, beside it on GPUs.

On a CPU vLLM's usual three processes compete for the cores; one process with the engine in a
thread starts five times faster, needs less memory and generates more. On GPUs the engine keeps
its own process, and a thread of ours runs the event loop that talks to it, so that a policy works
from any event loop and a busy caller never delays the engine.
"""

import difflib
import logging
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lit_qagent.core.errors import ConfigError, ModelError
from lit_qagent.policies.vllm_loop import LoopEngine
from lit_qagent.policies.vllm_lora import lora_args
from lit_qagent.policies.vllm_thread import ThreadEngine

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams

_ENVIRONMENT = {
    # OpenMP threads that spin while they wait made generation 5 to 20 times slower on two cores
    # that were shared with one other busy process.
    "OMP_WAIT_POLICY": "PASSIVE",
    "VLLM_NO_USAGE_STATS": "1",  # no telemetry, under both of its names
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCH_CPP_LOG_LEVEL": "ERROR",  # torch warns of NUMA binding at every start
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # standard output belongs to our own tables
}


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """What an engine is started with.

    Attributes:
        model: Folder or hub id.
        dtype: ``bfloat16``, ``float16`` or ``float32``.
        max_model_len: Longest prompt and answer together, in tokens.
        max_num_seqs: Sequences that are generated at the same time.
        kv_cache_gb: Memory for keys and values on a CPU, in GiB.
        extra: Further arguments of vLLM's ``EngineArgs``.
        lora: Folder of an adapter that all requests go through; None is the model as it is.
    """

    model: str
    dtype: str
    max_model_len: int
    max_num_seqs: int
    kv_cache_gb: float
    extra: Mapping[str, Any] = field(default_factory=dict)
    lora: str | None = None


def prepare_environment() -> None:
    """Set the environment variables that torch and vLLM read when they are imported.

    What the user has set stays. Without effect on a package that is imported already.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # vLLM warns before it has read its own settings.
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])


class Engine(Protocol):
    """A running engine.

    Attributes:
        is_dead: True once it has failed for good; every request gets a `PolicyFailure`.
    """

    is_dead: bool

    async def generate(
        self, prompt_ids: Sequence[int], params: "SamplingParams"
    ) -> "RequestOutput":
        """Return the finished output of one request; cancelling the task ends the request.

        Raises:
            PolicyFailure: The engine refused the request, died or was closed.
        """
        ...

    def close(self) -> None:
        """End the engine and wait until its memory is free; requests in flight fail."""
        ...


def start_engine(spec: EngineSpec, *, one_process: bool) -> Engine:
    """Start an engine; takes seconds to minutes and blocks.

    Args:
        spec: What to start.
        one_process: True puts the engine into this process (CPUs only).

    Raises:
        ConfigError: ``spec.extra`` has an argument that vLLM does not know.
        ModelError: vLLM cannot load the model or does not get the memory it was promised.
    """
    prepare_environment()
    # Read by vLLM when it is imported and when the engine starts.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0" if one_process else "1"
    if one_process:
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    args = engine_args(spec, one_process=one_process)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside vLLM, not ours to act on
        _check_extra(spec.extra)
        kind = ThreadEngine if one_process else LoopEngine
        engine: ThreadEngine | LoopEngine = kind(args, spec.lora)
        try:
            engine.started.result()
        except Exception as error:
            adapter = "" if spec.lora is None else f" and adapter {spec.lora!r}"
            raise ModelError(
                f"vLLM could not start with model {spec.model!r}{adapter}: {error}; check the "
                f"model, and max_model_len ({spec.max_model_len}) and kv_cache_gb "
                f"({spec.kv_cache_gb}) against the memory there is"
            ) from error
    return engine


def engine_args(spec: EngineSpec, *, one_process: bool) -> dict[str, Any]:
    """Return the keyword arguments of vLLM's ``EngineArgs``; those of the user win.

    Raises:
        ModelError: The adapter cannot be used.
    """
    args: dict[str, Any] = {
        "model": spec.model,
        "dtype": spec.dtype,
        "max_model_len": spec.max_model_len,
        "max_num_seqs": spec.max_num_seqs,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        # The cheapest backend for expressions that are new in every request.
        "structured_outputs_config": {"backend": "guidance"},
        "logits_processors": ["lit_qagent.policies.vllm_choices:ChoiceProcessor"],
    }
    if one_process:
        args |= {
            "distributed_executor_backend": "uni",
            "enforce_eager": True,  # compiling takes over a minute at every start
            "block_size": 32,  # shared prefixes are reused in blocks, and the default is 128
            "kv_cache_memory_bytes": int(spec.kv_cache_gb * 2**30),
            # vLLM 0.32 dies on a CPU ("CPU Generator does not use offset") when the prompt of a
            # request with a seed is split over two engine steps, so prompts are never split.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(2048, spec.max_model_len),
        }
    if spec.lora is not None:
        args |= lora_args(Path(spec.lora))
    return args | dict(spec.extra)


def _check_extra(names: Iterable[str]) -> None:
    """Refuse arguments that vLLM does not have, naming the nearest that it has."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    known = set(AsyncEngineArgs.__dataclass_fields__)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"engine_args.{name} is not an argument of vLLM's EngineArgs{hint}")

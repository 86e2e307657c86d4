"""A local LLM through transformers alone: the fallback where vLLM cannot be installed."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lit_qagent.core.errors import ConfigError, ModelError, PolicyFailure
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling
from lit_qagent.policies.background import BackgroundStart
from lit_qagent.policies.base import Policy, check_request, check_room
from lit_qagent.policies.chat import ChatRenderer, load_renderer
from lit_qagent.policies.dtypes import resolve_dtype
from lit_qagent.policies.pretrained import resolve_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """A model, the rendering that belongs to it, and the one thread that runs it."""

    model: "PreTrainedModel"
    renderer: ChatRenderer
    worker: ThreadPoolExecutor


class TransformersPolicy(Policy):
    """Samples with ``generate``, one request at a time, in a thread of its own.

    About 4 to 8 times slower than `VLLMPolicy` on a CPU, as requests are not batched with each
    other. The n samples of a request share one pass over the prompt. Random numbers come from a
    private generator: torch's global one is neither used nor changed.

    Args:
        model: ``SmolLM2-135M-Instruct``, a folder, or a hub id.
        dtype: Type of the weights; ``auto`` is bfloat16, but float32 on CPUs that would have to
            emulate it (`resolve_dtype`).
        device: ``auto`` takes the first GPU if there is one; else a torch device.
        max_model_len: Longest prompt and action together, in tokens.
    """

    def __init__(
        self,
        model: str,
        dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto",
        device: str = "auto",
        max_model_len: int = 2048,
    ) -> None:
        super().__init__()
        if max_model_len <= 0:
            raise ConfigError(
                f"TransformersPolicy.max_model_len must be positive, got {max_model_len}"
            )
        self.model = model
        self.dtype = dtype
        self.device = device
        self.max_model_len = max_model_len
        self._loaded = BackgroundStart("transformers-start", self._load)

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        """Return n samples.

        With choices, each is scored exactly and drawn with probability proportional to
        ``exp(log p(choice) / temperature)``, where log p sums over its tokens and those that
        close the turn. (A token-by-token constraint, as in `VLLMPolicy`, normalises at every
        token instead, so the two draw from somewhat different distributions.)

        Raises:
            ConfigError: See `Policy.propose`.
            ContextOverflow: Prompt and longest action together exceed ``max_model_len``.
            ModelError: The model cannot be found or loaded.
            PolicyFailure: The constraint is a regular expression.
        """
        check_request(n, constraint)
        if constraint is not None and constraint.regex is not None:
            raise PolicyFailure(
                "TransformersPolicy cannot hold an action to a regular expression "
                f"({constraint.regex[:60]!r}); use VLLMPolicy, or set prompt.constrain false"
            )
        loaded = await self._loaded.get()
        prompt_ids = loaded.renderer.prompt_ids(messages)
        choices = constraint.choices if constraint else ()
        choice_ids = [loaded.renderer.action_ids(choice) for choice in choices]
        room = max(map(len, choice_ids)) if choice_ids else sampling.max_tokens
        check_room(len(prompt_ids), room, self.max_model_len)
        # Here, because this module must load without torch.
        from lit_qagent.policies import transformers_generation as generation

        request = generation.Request(prompt_ids=prompt_ids, n=n, sampling=sampling, seed=seed)
        tokenizer = loaded.renderer.tokenizer
        loop = asyncio.get_running_loop()
        if choices:
            proposals = await loop.run_in_executor(
                loaded.worker, generation.choose, loaded.model, request, choices, choice_ids
            )
        else:
            proposals = await loop.run_in_executor(
                loaded.worker, generation.generate, loaded.model, tokenizer, request
            )
        generated = sum(proposal.num_tokens for proposal in proposals)
        return self.charge(proposals, prompt_tokens=len(prompt_ids), generated_tokens=generated)

    def settings(self) -> dict[str, Any]:
        """Return the model and what changes its answers."""
        return {
            "policy": "transformers",
            "model": self.model,
            "dtype": resolve_dtype(self.dtype),
            "max_model_len": self.max_model_len,
        }

    async def close(self) -> None:
        """Let go of the model; requests that wait are cancelled, one that runs ends first."""
        loaded = self._loaded.take()
        if loaded is not None and loaded.done() and loaded.exception() is None:
            await asyncio.to_thread(loaded.result().worker.shutdown, cancel_futures=True)

    def _load(self) -> _Loaded:
        """Find and load the model."""
        import torch
        from transformers import AutoModelForCausalLM

        name = resolve_model(self.model)
        renderer = load_renderer(name)
        dtype = getattr(torch, resolve_dtype(self.dtype))
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
            torch.nn.Module.to(model, device)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"model {self.model!r} cannot be loaded to {device!r}: {error}; check the folder, "
                "and the memory of the device"
            ) from error
        worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="transformers")
        return _Loaded(model=model, renderer=renderer, worker=worker)

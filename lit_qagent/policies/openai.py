"""Any LLM behind an OpenAI-compatible API: a provider, or a server of one's own."""

from collections.abc import Sequence
from typing import Any

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling
from lit_qagent.policies.base import Policy, check_request
from lit_qagent.policies.openai_http import ChatEndpoint, EndpointSpec

_CHARACTERS_PER_TOKEN = 4


class OpenAIPolicy(Policy):
    """Samples through ``/chat/completions``.

    Servers that return fewer choices than asked for are asked again for the rest. Servers that do
    not report usage are counted in `num_estimated`, their tokens estimated as four characters
    each. A server that ignores stop strings does no harm: answers are cut here too.

    Args:
        model: Name of the model on the server.
        base_url: Address up to and with the version.
        api_key_env: Name of the environment variable that holds the key; the key itself is never
            stored, reported or shown.
        timeout_s: Longest wait for each of connecting, writing and reading, in seconds.
        max_retries: Further attempts after the first.
        max_concurrency: Requests in flight at the same time.
        structured_outputs: The server understands vLLM's ``structured_outputs`` field; without
            it a constraint is an error, as a server that ignores it would go unnoticed.
    """

    def __init__(
        self,
        model: str,
        base_url: str = "https://api.openai.com/v1",
        api_key_env: str = "OPENAI_API_KEY",
        timeout_s: float = 120.0,
        max_retries: int = 6,
        max_concurrency: int = 32,
        structured_outputs: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.structured_outputs = structured_outputs
        self.num_estimated = 0
        self.endpoint = ChatEndpoint(
            EndpointSpec(
                base_url=base_url,
                api_key_env=api_key_env,
                timeout_s=timeout_s,
                max_retries=max_retries,
                max_concurrency=max_concurrency,
            )
        )

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

        At temperature 0 all n are one answer. Tokens are reported per request, so those of its
        choices are equal shares that add up to it.

        Raises:
            ConfigError: See `Policy.propose`; or a constraint without ``structured_outputs``.
            ContextOverflow: The server says that the prompt is too long.
            PolicyFailure: The server refused the request, or gave no answer after the retries.
        """
        check_request(n, constraint)
        body = self._body(messages, sampling, constraint)
        wanted = 1 if sampling.temperature == 0 else n
        proposals: list[Proposal] = []
        while len(proposals) < wanted:  # each answer has a choice, so this ends
            share = {"n": wanted - len(proposals)}
            if seed is not None:
                share["seed"] = seed + len(proposals)
            answer = await self.endpoint.complete(body | share)
            proposals += self._read(answer, share["n"], sampling.stop)
        return proposals * n if wanted < n else proposals

    def settings(self) -> dict[str, Any]:
        """Return the server and model; never the key."""
        return {
            "policy": "openai",
            "model": self.model,
            "base_url": self.endpoint.spec.base_url,
            "structured_outputs": self.structured_outputs,
        }

    async def close(self) -> None:
        """Close the connections."""
        await self.endpoint.close()

    def _body(
        self, messages: Sequence[Message], sampling: Sampling, constraint: Constraint | None
    ) -> dict[str, Any]:
        """Return the request without n and seed."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [message.to_dict() for message in messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if constraint is None:
            return body
        if not self.structured_outputs:
            raise ConfigError(
                "OpenAIPolicy was given a constraint, but structured_outputs is false; set it "
                "true if the server is vLLM's, else wrap the policy in RepromptPolicy or set "
                "prompt.constrain false"
            )
        if constraint.choices:
            body["structured_outputs"] = {"choice": list(constraint.choices)}
        else:
            body["structured_outputs"] = {"regex": constraint.regex}
        return body

    def _read(self, answer: dict[str, Any], wanted: int, stop: Sequence[str]) -> list[Proposal]:
        """Return the proposals of one answer, at most as many as wanted, and count its usage."""
        texts = [choice["message"].get("content") or "" for choice in answer["choices"]]
        usage = answer.get("usage") or {}
        prompt_tokens = int(usage.get("prompt_tokens") or 0)
        generated = usage.get("completion_tokens")
        if generated is None:
            self.num_estimated += 1
            generated = sum(-(-len(text) // _CHARACTERS_PER_TOKEN) for text in texts)
        self.usage.add(requests=1, prompt_tokens=prompt_tokens, generated_tokens=generated)
        share, rest = divmod(int(generated), len(texts))
        return [
            Proposal(
                text=_cut(text, stop),
                num_tokens=share + (index < rest),
                prompt_tokens=prompt_tokens,
                finish_reason=choice.get("finish_reason") or "stop",
            )
            for index, (choice, text) in enumerate(zip(answer["choices"], texts, strict=True))
        ][:wanted]


def _cut(text: str, stop: Sequence[str]) -> str:
    """Return the text before the first stop string."""
    found = [position for position in map(text.find, stop) if position >= 0]
    return text[: min(found)] if found else text

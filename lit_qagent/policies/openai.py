"""Any LLM behind an OpenAI-compatible API: a provider, or a server of one's own."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling
from lit_qagent.policies.base import Policy, check_request, copies
from lit_qagent.policies.openai_answers import Answer, Api
from lit_qagent.policies.openai_dialect import Dialect
from lit_qagent.policies.openai_http import Endpoint, EndpointSpec
from lit_qagent.policies.openai_limits import RateLimit
from lit_qagent.policies.openai_refusals import Refused
from lit_qagent.policies.plain_prompt import PlainTemplate

_CHARACTERS_PER_TOKEN = 4


class OpenAIPolicy(Policy):
    """Samples through ``/chat/completions`` or ``/completions``.

    What servers do differently is learnt from their answers: one that returns fewer choices than
    asked for is asked again for the rest, one that never returns more than one is asked n times at
    once, one that wants ``max_completion_tokens`` gets it. Servers that do not report usage are
    counted in `num_estimated`, their tokens estimated as four characters each. A server that
    ignores stop strings does no harm: answers are cut here too.

    Args:
        model: Name of the model on the server.
        base_url: Address up to and with the version.
        api_key_env: Name of the environment variable that holds the key; the key itself is never
            stored, reported or shown.
        api: ``chat``, or ``completions`` for base models, which are given plain text.
        template: How a chat becomes plain text for ``completions``; None is our own.
        timeout_s: Longest duration of one attempt, in seconds.
        max_retries: Further attempts after the first.
        max_concurrency: Requests in flight at the same time.
        requests_per_minute: Sent in any 60 seconds, by all calls of this policy; None is no limit.
        tokens_per_minute: Prompts and answers in any 60 seconds; None is no limit. Before its
            answer a request counts with its longest: four characters to a token of the prompt and
            n times ``max_tokens``.
        structured_outputs: The server understands vLLM's ``structured_outputs`` field; without
            it a constraint is an error, as a server that ignores it would go unnoticed.
    """

    def __init__(  # noqa: PLR0913 (every argument is an option in YAML)
        self,
        model: str,
        base_url: str = "https://api.openai.com/v1",
        api_key_env: str = "OPENAI_API_KEY",
        api: Api = "chat",
        template: PlainTemplate | None = None,
        timeout_s: float = 120.0,
        max_retries: int = 6,
        max_concurrency: int = 32,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        structured_outputs: bool = False,
    ) -> None:
        super().__init__()
        if template is not None and api != "completions":
            raise ConfigError(
                f"OpenAIPolicy.template goes with api 'completions', got api {api!r}; chat models "
                "have a template of their own"
            )
        self.model = model
        self.api: Api = api
        self.template = template or PlainTemplate()
        self.structured_outputs = structured_outputs
        self.num_estimated = 0
        self.dialect = Dialect()
        self.endpoint = Endpoint(
            EndpointSpec(
                base_url=base_url,
                api_key_env=api_key_env,
                api=api,
                timeout_s=timeout_s,
                max_retries=max_retries,
                max_concurrency=max_concurrency,
            ),
            RateLimit(requests_per_minute, tokens_per_minute),
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
        choices are equal shares that add up to it. Where n samples took several requests, each is
        in the ``cost`` of its first sample.

        Raises:
            ConfigError: See `Policy.propose`; or a constraint without ``structured_outputs``, or a
                request beyond ``tokens_per_minute``.
            ContextOverflow: The server says that the prompt is too long.
            PolicyFailure: The server refused the request, or gave no answer after the retries.
        """
        check_request(n, constraint)
        body = self._body(messages, sampling, constraint)
        if sampling.temperature == 0:
            return copies((await self._draw(body, 1, seed))[0], n)
        return await self._draw(body, n, seed)

    def settings(self) -> dict[str, Any]:
        """Return the server and model; never the key."""
        settings: dict[str, Any] = {
            "policy": "openai",
            "model": self.model,
            "base_url": self.endpoint.spec.base_url,
            "structured_outputs": self.structured_outputs,
        }
        if self.api == "completions":
            settings |= {"api": self.api, "template": asdict(self.template)}
        return settings

    async def close(self) -> None:
        """Close the connections."""
        await self.endpoint.close()

    def _body(
        self, messages: Sequence[Message], sampling: Sampling, constraint: Constraint | None
    ) -> dict[str, Any]:
        """Return the request without n and seed."""
        stop = list(sampling.stop)
        body: dict[str, Any] = {"model": self.model}
        if self.api == "chat":
            body["messages"] = [message.to_dict() for message in messages]
        else:
            body["prompt"] = self.template.render(messages)
            stop += [each for each in self.template.stop if each not in stop]
        body |= {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        }
        if stop:
            body["stop"] = stop
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

    async def _draw(self, body: Mapping[str, Any], n: int, seed: int | None) -> list[Proposal]:
        """Return n samples in as few requests as the server allows; sample i has seed + i."""
        proposals: list[Proposal] = []
        while len(proposals) < n:  # a request brings a choice, or what to do without, or an error
            rest = n - len(proposals)
            next_seed = None if seed is None else seed + len(proposals)
            if rest > 1 and self.dialect.takes_n is False:
                batches = await self._draw_apart(body, rest, next_seed)
            else:
                batches = [await self._request(body, rest, next_seed)]
            for batch in batches:
                proposals += batch
        return proposals

    async def _draw_apart(
        self, body: Mapping[str, Any], n: int, seed: int | None
    ) -> list[list[Proposal]]:
        """Return n samples of n requests at once; all end if one fails."""
        tasks = [
            asyncio.create_task(self._draw(body, 1, None if seed is None else seed + index))
            for index in range(n)
        ]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _request(self, body: Mapping[str, Any], n: int, seed: int | None) -> list[Proposal]:
        """Return the samples of one request; none if the server taught how to ask instead."""
        whole = {**body, "n": n} | ({} if seed is None else {"seed": seed})
        sent = self.dialect.translate(whole)
        tokens = _estimate(sent) + n * int(body["max_tokens"])
        try:
            answer = await self.endpoint.complete(sent, tokens)
        except Refused as refused:
            if self.dialect.learn(refused.refusal, sent):
                return []
            raise
        self.dialect.note_choices(n, len(answer.texts))
        return self._read(answer, n, body.get("stop", ()))

    def _read(self, answer: Answer, wanted: int, stop: Sequence[str]) -> list[Proposal]:
        """Return the proposals of one answer, at most as many as wanted, and count its usage."""
        generated = answer.generated_tokens
        if generated is None:
            self.num_estimated += 1
            generated = sum(-(-len(text) // _CHARACTERS_PER_TOKEN) for text in answer.texts)
        share, rest = divmod(generated, len(answer.texts))
        whole = zip(answer.texts, answer.finish_reasons, strict=True)
        cut = [_cut(text, reason, stop) for text, reason in whole]
        proposals = [
            Proposal(text=text, num_tokens=share + (index < rest), finish_reason=reason)
            for index, (text, reason) in enumerate(cut)
        ]
        return self.charge(
            proposals[:wanted], prompt_tokens=answer.prompt_tokens, generated_tokens=generated
        )


def _cut(text: str, reason: str, stop: Sequence[str]) -> tuple[str, str]:
    """Return the text before the first stop string, and why it ends."""
    found = [position for position in map(text.find, stop) if position >= 0]
    return (text[: min(found)], "stop") if found else (text, reason)


def _estimate(body: Mapping[str, Any]) -> int:
    """Return about how many tokens the prompt has."""
    texts = (
        [body["prompt"]]
        if "prompt" in body
        else [message["content"] for message in body["messages"]]
    )
    return sum(-(-len(text) // _CHARACTERS_PER_TOKEN) for text in texts)

"""Reads the answers of both APIs, chat completions and completions, into one form."""

import json
from dataclasses import dataclass
from typing import Any, Literal

Api = Literal["chat", "completions"]
PATHS: dict[Api, str] = {"chat": "chat/completions", "completions": "completions"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a server has answered.

    Attributes:
        texts: One per choice, at least one.
        finish_reasons: One per choice.
        prompt_tokens: 0 if the server does not say.
        generated_tokens: Of all choices together; None if the server does not say.
    """

    texts: tuple[str, ...]
    finish_reasons: tuple[str, ...]
    prompt_tokens: int
    generated_tokens: int | None


def read_answer(text: str, api: Api) -> Answer:
    """Read an answer.

    Raises:
        ValueError: It is not JSON, of another form, or has no choice.
    """
    try:
        body = json.loads(text)
        choices = sorted(body["choices"], key=lambda choice: choice.get("index") or 0)
        texts = tuple(_text(choice, api) for choice in choices)
        reasons = tuple(str(choice.get("finish_reason") or "stop") for choice in choices)
        usage = body.get("usage") or {}
        generated = usage.get("completion_tokens")
        answer = Answer(
            texts=texts,
            finish_reasons=reasons,
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            generated_tokens=None if generated is None else int(generated),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("an answer that is no completion") from error
    if not texts:
        raise ValueError("an answer without choices")
    return answer


def _text(choice: dict[str, Any], api: Api) -> str:
    """Return the text of a choice; a chat model that was cut while it reasoned has none."""
    text = choice["message"].get("content") if api == "chat" else choice["text"]
    if text is not None and not isinstance(text, str):
        raise TypeError(f"content of type {type(text).__name__}")
    return text or ""

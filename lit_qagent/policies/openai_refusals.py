"""What a server's refusal means: OpenAI's form of errors, FastChat's, and those without a form."""

import json
from dataclasses import dataclass
from typing import Any

from lit_qagent.core.errors import PolicyFailure

_PASSING = frozenset({408, 409, 429})
_OVERFLOW_SIGNS = (
    "maximum context length",  # OpenAI, vLLM, FastChat
    "context_length_exceeded",  # OpenAI's code, llama-cpp-python
    "exceed_context_size",  # llama.cpp's own server
    "exceeds the available context size",
)
_FASTCHAT_OVERFLOW = "40303"
# FastChat answers 400 when its worker is gone or busy; these codes may pass, 429xx are limits.
_FASTCHAT_PASSING = frozenset({"50001", "50002", "50005", "50006", "42901", "42903"})
_SPENT = "insufficient_quota"


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """An answer with a status other than 200.

    Attributes:
        status: The HTTP status.
        text: The whole body.
        message: The server's own words.
        code: Its code, as text; empty if it gives none.
        param: The parameter it objects to; empty if it names none.
    """

    status: int
    text: str
    message: str
    code: str = ""
    param: str = ""

    @property
    def is_passing(self) -> bool:
        """True if the same request may succeed later."""
        if self.code == _SPENT:
            return False
        return (
            self.status in _PASSING
            or self.status >= 500
            or (self.status == 400 and self.code in _FASTCHAT_PASSING)
        )

    @property
    def is_overflow(self) -> bool:
        """True if the prompt is too long."""
        return self.code == _FASTCHAT_OVERFLOW or any(sign in self.text for sign in _OVERFLOW_SIGNS)


class Refused(PolicyFailure):
    """A request that the server will never answer as it is."""

    def __init__(self, message: str, refusal: Refusal) -> None:
        super().__init__(message)
        self.refusal = refusal


def read_refusal(status: int, text: str) -> Refusal:
    """Read a refusal; a body in no known form is its own message.

    Examples:
        >>> read_refusal(400, '{"object": "error", "message": "gone", "code": 50001}').is_passing
        True
        >>> read_refusal(404, "not here").message
        'not here'
    """
    try:
        body: Any = json.loads(text)
    except ValueError:
        body = None
    error: Any = body.get("error", body) if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return Refusal(status=status, text=text, message=text)
    return Refusal(
        status=status,
        text=text,
        message=str(error.get("message") or text),
        code=_plain(error.get("code")),
        param=_plain(error.get("param")),
    )


def _plain(value: object) -> str:
    return "" if value is None else str(value)

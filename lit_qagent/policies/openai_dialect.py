"""What one server takes: learnt from its refusals, so that each costs one request only."""

import logging
import re
from collections.abc import Mapping
from typing import Any

from lit_qagent.policies.openai_refusals import Refusal

_log = logging.getLogger(__name__)

_NEW_NAMES = {"max_tokens": "max_completion_tokens"}
# Answers are cut at stop strings here too, and a server without seeds has none to promise.
_DISPENSABLE = frozenset({"stop", "seed"})
# Leaving these out means the same as long as they have the API's default.
_DEFAULTS = {"temperature": 1.0, "top_p": 1.0}
_QUOTED = re.compile(r"['\"`](max_tokens|stop|seed|temperature|top_p|n)['\"`]")


class Dialect:
    """What a server has been found not to take.

    Attributes:
        takes_n: It returns n choices for n; None as long as that is not known.
        dropped: Fields that are no longer sent.
    """

    def __init__(self) -> None:
        self.takes_n: bool | None = None
        self.dropped: set[str] = set()
        self._renamed: dict[str, str] = {}

    def translate(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request in the server's words."""
        return {
            self._renamed.get(name, name): value
            for name, value in body.items()
            if name not in self.dropped
        }

    def learn(self, refusal: Refusal, sent: Mapping[str, Any]) -> bool:
        """Tell whether the request may succeed once it is translated or divided anew.

        Args:
            refusal: The server's.
            sent: The translated body that it refused.
        """
        if refusal.status not in (400, 422):
            return False
        quoted = _QUOTED.search(refusal.message)
        name = refusal.param or (quoted[1] if quoted else "")
        if name not in sent:
            return False
        if name == "n" and sent["n"] > 1:
            self.takes_n = False
            return True
        new_name = _NEW_NAMES.get(name)
        if new_name is not None and new_name in refusal.message:
            self._renamed[name] = new_name
            return True
        if name in _DISPENSABLE or (name in _DEFAULTS and sent[name] == _DEFAULTS[name]):
            if name not in self.dropped:
                _log.warning(
                    "the server refuses %r (%s); it is no longer sent", name, refusal.message[:200]
                )
            self.dropped.add(name)
            return True
        return False

    def note_choices(self, asked: int, given: int) -> None:
        """Note how many choices a request for several has brought."""
        if asked > 1 and given >= asked:
            self.takes_n = True
        elif asked > 1 and given == 1 and self.takes_n is None:
            self.takes_n = False

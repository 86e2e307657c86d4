"""History and actions to token ids within a context limit: one rendering for training and acting.

Over the limit the oldest steps are left out whole; the head (instruction, examples, task) and the
actions are never cut. Everything left out is counted.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from lit_qagent.core.errors import ConfigError, ContextOverflow
from lit_qagent.core.records import History
from lit_qagent.policies.chat import ChatRenderer

RENDERING_VERSION = "1"


class TokenSequence(NamedTuple):
    """A prompt and one action after it, as token ids; neither is empty."""

    prompt_ids: list[int]
    action_ids: list[int]


@dataclass(kw_only=True, slots=True)
class RenderingCounts:
    """What the context limit has cost so far; counts only grow.

    Attributes:
        rendered: Histories rendered.
        shortened: Of these, how many lost at least one step.
        dropped_steps: Steps left out, over all histories.
        too_long: Histories refused, as head and longest action alone exceed the limit.
        escaped_markers: Chat markers inside messages that were broken up.
    """

    rendered: int = 0
    shortened: int = 0
    dropped_steps: int = 0
    too_long: int = 0
    escaped_markers: int = 0

    def to_dict(self) -> dict[str, int]:
        """Return the counts as plain values."""
        return asdict(self)


class SequenceRenderer:
    """Renders a history and the actions after it, all after the same prompt.

    Args:
        chat: The chat template.
        max_length: Most tokens of prompt and action together.

    Raises:
        ConfigError: ``max_length`` is below 2.
    """

    def __init__(self, chat: ChatRenderer, max_length: int) -> None:
        if max_length < 2:
            raise ConfigError(
                f"max_length must be >= 2 (a prompt and an action, in tokens), got {max_length}"
            )
        self.max_length = max_length
        self.counts = RenderingCounts()
        self._chat = chat

    @property
    def chat(self) -> ChatRenderer:
        """The chat template and its tokenizer."""
        return self._chat

    def render(self, history: History, actions: Sequence[str]) -> list[TokenSequence]:
        """Return one sequence per action; all have the same prompt ids.

        Args:
            history: What came before.
            actions: At least one; the longest decides how many steps fit.

        Raises:
            ContextOverflow: Head and longest action exceed ``max_length``.
        """
        action_ids = [self._chat.action_ids(action) for action in actions]
        room = self.max_length - max(map(len, action_ids))
        shown = history
        prompt_ids = self._chat.prompt_ids(shown.messages)
        while len(prompt_ids) > room and shown.num_steps:
            shown = shown.without_oldest_step()
            prompt_ids = self._chat.prompt_ids(shown.messages)
        self._count(history.num_steps - shown.num_steps, fits=len(prompt_ids) <= room)
        if len(prompt_ids) > room:
            raise ContextOverflow(
                f"head and action need {len(prompt_ids) + self.max_length - room} tokens even "
                f"without any earlier step, max_length is {self.max_length}; raise max_length, or "
                "show fewer examples or shorter actions"
            )
        return [TokenSequence(prompt_ids, ids) for ids in action_ids]

    def _count(self, dropped_steps: int, *, fits: bool) -> None:
        self.counts.escaped_markers = self._chat.num_escaped
        if not fits:
            self.counts.too_long += 1
            return
        self.counts.rendered += 1
        self.counts.shortened += bool(dropped_steps)
        self.counts.dropped_steps += dropped_steps

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
    """A prompt and one action after it, as token ids; neither is empty.

    Attributes:
        prompt_ids: The history.
        action_ids: The action; or several, with the observations between them.
        observed: Where in ``action_ids`` observations begin and end (exclusive): what the world
            said is read and not scored.
    """

    prompt_ids: list[int]
    action_ids: list[int]
    observed: tuple[tuple[int, int], ...] = ()

    @property
    def scored(self) -> list[int]:
        """Where in ``action_ids`` the agent speaks, ascending."""
        places: list[int] = []
        position = 0
        for start, end in self.observed:
            places += range(position, start)
            position = end
        return [*places, *range(position, len(self.action_ids))]


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

    def fresh(self) -> "SequenceRenderer":
        """Return a renderer of the same form that counts from 0, but for escaped markers."""
        return SequenceRenderer(self._chat, self.max_length)

    def render(self, history: History, actions: Sequence[str]) -> list[TokenSequence]:
        """Return one sequence per action; all have the same prompt ids.

        Args:
            history: What came before.
            actions: At least one; the longest decides how many steps fit.

        Raises:
            ContextOverflow: Head and longest action exceed ``max_length``.
        """
        return self.render_episodes(history, [[action] for action in actions])

    def render_episodes(
        self, history: History, episodes: Sequence[Sequence[str]]
    ) -> list[TokenSequence]:
        """Return one sequence per episode; all have the same prompt ids.

        Args:
            history: What came before.
            episodes: At least one; an action, and perhaps an observation and an action in turn.
                They are never cut; the longest decides how many steps of the history fit.

        Raises:
            ContextOverflow: Head and longest episode exceed ``max_length``.
        """
        drafts = [self._episode(texts) for texts in episodes]
        room = self.max_length - max(len(draft.action_ids) for draft in drafts)
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
        return [draft._replace(prompt_ids=prompt_ids) for draft in drafts]

    def _episode(self, texts: Sequence[str]) -> TokenSequence:
        """Return an episode's ids, its prompt still missing."""
        ids = self._chat.action_ids(texts[0])
        observed = []
        for observation, action in zip(texts[1::2], texts[2::2], strict=True):
            start = len(ids)
            ids = ids + self._chat.observation_ids(observation)
            observed.append((start, len(ids)))
            ids = ids + self._chat.action_ids(action)
        return TokenSequence([], ids, tuple(observed))

    def _count(self, dropped_steps: int, *, fits: bool) -> None:
        self.counts.escaped_markers = self._chat.num_escaped
        if not fits:
            self.counts.too_long += 1
            return
        self.counts.rendered += 1
        self.counts.shortened += bool(dropped_steps)
        self.counts.dropped_steps += dropped_steps

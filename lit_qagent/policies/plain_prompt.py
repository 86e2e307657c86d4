"""A chat as plain text, for base models that know no chat template."""

from collections.abc import Sequence
from dataclasses import dataclass

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import Message

_SLOT = "{content}"


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads the defaults by vars()
class PlainTemplate:
    r"""How the messages of a chat become the text that a base model goes on from.

    Each part has ``{content}`` where the message goes. What begins a new part (``stop``) would let
    a message speak for another role, so inside messages it is broken up by a blank.

    Attributes:
        system: The rules.
        user: What the world says.
        assistant: What the agent has said.
        opening: Begins the agent's next message.
        stop: Strings that end it, besides those of the sampling.
    """

    system: str = "{content}\n\n"
    user: str = "### World\n{content}\n\n"
    assistant: str = "### Agent\n{content}\n\n"
    opening: str = "### Agent\n"
    stop: tuple[str, ...] = ("\n###",)

    def __post_init__(self) -> None:
        for name in ("system", "user", "assistant"):
            if getattr(self, name).count(_SLOT) != 1:
                raise ConfigError(
                    f"template.{name} must have {_SLOT} once, where the message goes, "
                    f"got {getattr(self, name)!r}"
                )
        if any(not stop for stop in self.stop):
            raise ConfigError(f"template.stop has an empty string: {list(self.stop)!r}")

    def render(self, messages: Sequence[Message]) -> str:
        r"""Return the prompt.

        Examples:
            >>> PlainTemplate().render([Message(role="user", content="You see a door.")])
            '### World\nYou see a door.\n\n### Agent\n'
        """
        parts = (getattr(self, m.role).replace(_SLOT, self._break(m.content)) for m in messages)
        return "".join(parts) + self.opening

    def _break(self, text: str) -> str:
        text = f"\n{text}"  # a message begins on a line of its own
        for stop in self.stop:
            text = text.replace(stop, f"{stop[0]} {stop[1:]}")
        return text[1:]

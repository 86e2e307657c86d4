"""What happens when the process that works for a run dies."""

from lit_qagent.core.errors import EnvironmentFailure


class ActorLost(Exception):
    """An actor died."""


class ActorForgot(ActorLost):
    """An actor was started again and does not know the tree that it was asked to go on with."""


class ActorGone(ActorLost):
    """An actor died and will not be started again."""


class SearcherLost(EnvironmentFailure):
    """A task whose search actors died one after the other; it is recorded as failed."""

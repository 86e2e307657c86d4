"""What ``predict`` hands to the module as a batch."""

from collections.abc import Mapping
from typing import Any, Protocol

from lit_qagent.agents.selection import Scorer


class EpisodeShard(Protocol):
    """A batch of ``predict``: held-out tasks to play with the Q-model."""

    def play(self, scorer: Scorer, lineage: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Play the tasks.

        Args:
            scorer: The Q-model.
            lineage: What it was trained on; empty if it was not trained.
        """
        ...

"""Is this the tokenizer that a Q-model was trained with? Its values are of tokens, not of texts."""

from collections.abc import Mapping
from typing import Any

from lit_qagent.core.errors import CheckpointError
from lit_qagent.policies.chat import ChatRenderer

TOKENIZER_KEY = "tokenizer"  # in a lineage; the fingerprint of the chat renderer


def check_tokenizer(chat: ChatRenderer, lineage: Mapping[str, Any]) -> None:
    """Refuse a tokenizer or chat template other than that of training.

    Args:
        chat: What renders now.
        lineage: Of the Q-model; one without a fingerprint passes.

    Raises:
        CheckpointError: They differ.
    """
    trained = lineage.get(TOKENIZER_KEY)
    if trained and trained != chat.fingerprint:
        raise CheckpointError(
            f"the Q-model was trained with another tokenizer or chat template (fingerprint "
            f"{trained[:12]}) than that of {chat.tokenizer.name_or_path!r} "
            f"({chat.fingerprint[:12]}), so its values would be of other tokens; restore the "
            "tokenizer's files and chat_template.jinja of training, or train again"
        )

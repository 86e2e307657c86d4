"""Chat messages to token ids: the one rendering behind local policies, training and scoring."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from lit_qagent.core.errors import ModelError
from lit_qagent.core.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "x"
_FOUND = "Wozu7"  # no template holds this word


class ChatRenderer:
    """Renders prompts and actions with a tokenizer's chat template.

    A prompt and an action are tokenised apart, so the prompt's ids are an exact prefix of the
    whole by construction. Markers such as ``<|im_end|>`` inside a message would let a world's
    text end a turn; they are broken up by a blank, and counted in `num_escaped`.

    Args:
        tokenizer: A tokenizer with a chat template.

    Raises:
        ModelError: The tokenizer has no chat template.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                f"the tokenizer of {tokenizer.name_or_path!r} has no chat template; use an "
                "instruction-tuned model, or put a chat_template.jinja into the model's folder"
            )
        self.tokenizer = tokenizer
        self.num_escaped = 0
        self._markers = [token for token in tokenizer.all_special_tokens if len(token) > 1]
        self._end_ids = self._find_end_ids()

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what decides which ids a chat has: vocabulary, splitting and template."""
        mixed = "Thought: I'll look.\n\nAction: Search[Café №7]  1,234.5 -> naïve"
        parts = [
            sorted(self.tokenizer.get_vocab().items()),
            self.tokenizer.chat_template,
            self._plain_ids(mixed),  # tokenizers split it in different ways
            self._end_ids,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def num_end_tokens(self) -> int:
        """How many tokens close the agent's turn; they are part of every action."""
        return len(self._end_ids)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids of a chat, up to and with the marker that opens the agent's turn."""
        chat = [{"role": m.role, "content": self._escape(m.content)} for m in messages]
        ids = self.tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return list(ids)

    def action_ids(self, action: str) -> list[int]:
        """Return the ids of an action with what closes the agent's turn (as TRL counts it)."""
        return self._plain_ids(self._escape(action)) + self._end_ids

    def observation_ids(self, observation: str) -> list[int]:
        """Return the ids between two actions: an observation, and what opens the next turn.

        A prompt, an action, these ids and the next action are the chat that an agent sees, as far
        as the tokenizer does not join letters across the borders between them.

        Raises:
            ModelError: The chat template changes what the agent said.
        """
        chat = [
            {"role": "system", "content": _PROBE},
            {"role": "user", "content": _PROBE},
            {"role": "assistant", "content": _FOUND},
            {"role": "user", "content": self._escape(observation)},
        ]
        whole = self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        _, found, rest = str(whole).partition(_FOUND)
        if not found:
            raise ModelError(
                f"the chat template of {self.tokenizer.name_or_path!r} changes what the agent "
                "says, so whole episodes cannot be rendered; train on step-level pairs, or use "
                "another model"
            )
        ids = self._plain_ids(rest)
        # What closes the agent's turn is part of the action already.
        num_end = len(self._end_ids)
        return ids[num_end:] if ids[:num_end] == self._end_ids else ids

    def _plain_ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _find_end_ids(self) -> list[int]:
        """Return what the template puts after an assistant message."""
        ask = [{"role": "system", "content": _PROBE}, {"role": "user", "content": _PROBE}]
        prompt = self.tokenizer.apply_chat_template(ask, add_generation_prompt=True, tokenize=False)
        whole = self.tokenizer.apply_chat_template(
            [*ask, {"role": "assistant", "content": _PROBE}], tokenize=False
        )
        if isinstance(whole, str) and isinstance(prompt, str) and whole.startswith(prompt + _PROBE):
            return self._plain_ids(whole[len(prompt) + len(_PROBE) :])
        return [self.tokenizer.eos_token_id]

    def _escape(self, text: str) -> str:
        for marker in self._markers:
            if marker in text:
                self.num_escaped += text.count(marker)
                text = text.replace(marker, f"{marker[0]} {marker[1:]}")
        return text


def load_renderer(model: str, revision: str | None = None) -> ChatRenderer:
    """Return the renderer of a model's own tokenizer.

    Args:
        model: Folder or hub id.
        revision: Commit or tag on the hub; None is the newest.

    Raises:
        ModelError: The tokenizer cannot be read or has no chat template.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the tokenizer of model {model!r} cannot be read ({error}); give a model with its "
            "tokenizer beside it"
        ) from error
    return ChatRenderer(tokenizer)

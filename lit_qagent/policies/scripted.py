"""A policy without a model, for tests, demonstrations and the search of toy worlds."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from lit_qagent.core.errors import ConfigError, PolicyFailure
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling
from lit_qagent.core.seeds import derive_seed
from lit_qagent.policies.base import Policy, check_request


class Script(Protocol):
    """A function that says what the agent does next."""

    def __call__(
        self,
        messages: Sequence[Message],
        choices: Sequence[str],
        rng: random.Random,
    ) -> str:
        """Return one action; ``choices`` is empty where the action is free."""
        ...


class ScriptedPolicy(Policy):
    """Answers from a rule: the same messages and seed always give the same actions.

    A token is one blank-separated word here. Answers longer than ``sampling.max_tokens`` are not
    cut, and stop strings are not looked for: a script means what it says.

    Args:
        mode: ``uniform`` draws among the legal actions; ``first`` takes the first of them, n times;
            ``table`` looks the last message up in ``answers``.
        answers: Last message to the actions to draw from, for ``table``.
        script: A function instead of a mode (not from YAML).
    """

    def __init__(
        self,
        mode: Literal["uniform", "first", "table"] = "uniform",
        *,
        answers: Mapping[str, Sequence[str]] | None = None,
        script: Script | None = None,
    ) -> None:
        super().__init__()
        if (mode == "table") != (answers is not None):
            raise ConfigError(
                f"ScriptedPolicy.answers goes with mode 'table' and only with it, "
                f"got mode {mode!r} {'without' if answers is None else 'with'} answers"
            )
        self.mode = mode
        self.answers = {key: tuple(actions) for key, actions in (answers or {}).items()}
        self.script = script

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        """Return n actions of the rule.

        Raises:
            PolicyFailure: The rule has nothing to choose from.
        """
        check_request(n, constraint)
        choices = constraint.choices if constraint else ()
        prompt = "\n".join(f"{m.role}: {m.content}" for m in messages)
        prompt_tokens = len(prompt.split())
        rng = random.Random(None if seed is None else derive_seed(seed, prompt))
        texts = [self._answer(messages, choices, rng) for _ in range(n)]
        proposals = [Proposal(text=text, num_tokens=len(text.split())) for text in texts]
        generated = sum(proposal.num_tokens for proposal in proposals)
        return self.charge(proposals, prompt_tokens=prompt_tokens, generated_tokens=generated)

    def settings(self) -> dict[str, Any]:
        """Return the rule."""
        name = getattr(self.script, "__name__", None) if self.script else None
        return {
            "policy": "scripted",
            "mode": "script" if self.script else self.mode,
            "answers": {key: list(actions) for key, actions in sorted(self.answers.items())},
            "script": name,
        }

    def _answer(
        self, messages: Sequence[Message], choices: Sequence[str], rng: random.Random
    ) -> str:
        """Return one action."""
        if self.script is not None:
            return self.script(messages, choices, rng)
        if self.mode == "table":
            return rng.choice(self._row(messages[-1].content))
        if not choices:
            raise PolicyFailure(
                f"ScriptedPolicy(mode={self.mode!r}) picks among legal actions and was given none; "
                "set prompt.constrain true and prompt.think false, in a world that lists them"
            )
        return choices[0] if self.mode == "first" else rng.choice(choices)

    def _row(self, content: str) -> Sequence[str]:
        """Return the actions that the table has for a message."""
        row = self.answers.get(content)
        if not row:
            raise PolicyFailure(
                f"ScriptedPolicy.answers has no action for the message {content!r}; add one"
            )
        return row

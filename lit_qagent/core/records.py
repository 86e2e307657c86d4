"""The records that travel between layers: frozen, keyword-only, standard library only."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.text import whole_letters

Role = Literal["system", "user", "assistant"]
SUCCESS_REWARD = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What the agent is asked.

    Attributes:
        task_id: Unique within its environment; overlap checks compare it.
        instruction: The request as the agent reads it.
        split: ``train``, ``valid`` or ``test`` (or the world's own names).
        data: What only the world may see, such as the answer or the goal; JSON values only.
    """

    task_id: str
    instruction: str
    split: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One chat message, in the form every chat API and TRL use."""

    role: Role
    content: str

    def to_dict(self) -> dict[str, str]:
        """Return ``{"role": ..., "content": ...}``."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What the world says.

    Attributes:
        text: The words the agent reads.
        admissible: Every legal command, where the world can list them; else None.
        pattern: A regular expression for one legal command, where it cannot; else None.
    """

    text: str
    admissible: tuple[str, ...] | None = None
    pattern: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One action and what followed.

    Attributes:
        action: The agent's whole message, thought included.
        observation: What the world said after it.
        reward: Outcome reward in [0, 1]; 0 before the end.
        terminated: The world ended the episode.
        truncated: The step limit ended it.
        valid: False if the world could not carry the action out.
        metrics: World-specific scores known at the end, such as ``{"em": 1.0, "f1": 1.0}``.
    """

    action: str
    observation: Observation
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    valid: bool = True
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_last(self) -> bool:
        """True if the episode ended here."""
        return self.terminated or self.truncated


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectory:
    """Steps from reset to the end, or to where playing stopped."""

    task_id: str
    first_observation: Observation
    steps: tuple[Step, ...]

    @property
    def reward(self) -> float:
        """Outcome reward in [0, 1]; 0 for an empty trajectory."""
        return self.steps[-1].reward if self.steps else 0.0

    @property
    def success(self) -> bool:
        """True if the full outcome reward was earned."""
        return self.reward >= SUCCESS_REWARD

    @property
    def num_invalid(self) -> int:
        """Number of actions the world could not carry out."""
        return sum(not step.valid for step in self.steps)


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """The chat so far: ``(u, tau_t)`` of the paper as messages.

    Attributes:
        head: System message, in-context examples and the task with its first observation;
            never shortened.
        turns: Action and observation messages of the steps taken, two per step; the oldest steps
            are dropped, whole, when the context is too short.
    """

    head: tuple[Message, ...]
    turns: tuple[Message, ...] = ()

    def __post_init__(self) -> None:
        if len(self.turns) % 2:
            raise ConfigError(
                f"History.turns holds an action and an observation per step, "
                f"got {len(self.turns)} messages, an odd number"
            )

    @property
    def messages(self) -> tuple[Message, ...]:
        """Head and turns, in order."""
        return self.head + self.turns

    @property
    def num_steps(self) -> int:
        """Number of steps taken."""
        return len(self.turns) // 2

    def without_oldest_step(self) -> "History":
        """Return the history with its oldest step dropped whole."""
        return History(head=self.head, turns=self.turns[2:])


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestCost:
    """Requests that were sent, and the tokens of their prompts and answers."""

    requests: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0

    def __add__(self, other: "RequestCost") -> "RequestCost":
        """Return the cost of both."""
        return RequestCost(
            requests=self.requests + other.requests,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            generated_tokens=self.generated_tokens + other.generated_tokens,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """One action that a policy proposes.

    Attributes:
        text: The whole message; halves of letters in it become the replacement character.
        num_tokens: Tokens of its own that were sampled; 0 if it was certain.
        log_prob: Sum over the tokens, natural log; None if the policy does not say.
        finish_reason: ``stop``, or ``length`` if the token limit cut it.
        cost: What was sent and generated for it, as the policy states it: the first proposal of a
            request bears all of the request, the others and copies bear nothing. The costs of all
            proposals add up to what the policy counts in its `Usage`.
    """

    text: str
    num_tokens: int
    log_prob: float | None = None
    finish_reason: str = "stop"
    cost: RequestCost = RequestCost()

    def __post_init__(self) -> None:
        if not self.text.isascii():
            object.__setattr__(self, "text", whole_letters(self.text))


def total_cost(proposals: Iterable[Proposal]) -> RequestCost:
    """Return what proposals have cost together."""
    return sum((proposal.cost for proposal in proposals), RequestCost())


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads the defaults by vars()
class Sampling:
    """How a policy samples.

    Attributes:
        temperature: 0 is greedy.
        top_p: Nucleus mass in (0, 1].
        max_tokens: Longest action in tokens.
        stop: Strings that end an action; they are not part of it.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 128
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ConfigError(f"sampling.temperature must be >= 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"sampling.top_p must be in (0, 1], got {self.top_p}")
        if self.max_tokens < 1:
            raise ConfigError(f"sampling.max_tokens must be >= 1, got {self.max_tokens}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Constraint:
    """What an action may look like; exactly one of the two is given.

    Attributes:
        choices: The action is one of these texts.
        regex: The action matches this expression.
        commands: Besides either, every legal command, where the world lists them: for policies
            that check an answer instead of guiding it.
    """

    choices: tuple[str, ...] = ()
    regex: str | None = None
    commands: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.choices) == (self.regex is not None):
            raise ConfigError("Constraint takes either choices or regex, exactly one of them")


@dataclass(kw_only=True, slots=True)
class Usage:
    """What a policy has cost so far; counts only grow."""

    requests: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0

    def add(self, cost: "RequestCost | Usage") -> None:
        """Count one more answer."""
        self.requests += cost.requests
        self.prompt_tokens += cost.prompt_tokens
        self.generated_tokens += cost.generated_tokens

    def to_dict(self) -> dict[str, int]:
        """Return the counts as plain values."""
        return asdict(self)

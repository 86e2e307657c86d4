"""A world of a few decisions whose optimal Q values are known in closed form."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from lit_qagent.core.actions import parse_call, parse_command
from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import Observation, Task, Trajectory
from lit_qagent.environments.base import Environment, Outcome
from lit_qagent.environments.splits import SplitSizes, draw_splits, tasks_of_split

KINDS = (
    ("colour", ("red", "blue", "green", "pink", "black", "white", "brown", "gold")),
    ("shape", ("circle", "square", "star", "cross", "heart", "ring", "cube", "cone")),
    ("size", ("small", "large", "tiny", "huge", "wide", "narrow", "tall", "short")),
    ("fruit", ("apple", "pear", "plum", "lemon", "grape", "melon", "peach", "cherry")),
    ("animal", ("cat", "dog", "horse", "goat", "duck", "bear", "fox", "frog")),
)
_DEFAULT_SPLITS = SplitSizes(train=32, valid=8, test=16)


class ToyWorld(Environment):
    """Pick one word per step; the reward is the share of words that the task asked for.

    Args:
        depth: Words to pick, 1 to 5.
        num_actions: Words offered at each step, 2 to 8.
        splits: Tasks per split; one target must stay free for the example.
        max_steps: Step limit; steps beyond ``depth`` leave room for invalid actions.
        seed: Decides which targets go to which split.
    """

    name = "toy"
    version = "1"

    def __init__(
        self,
        *,
        depth: int = 3,
        num_actions: int = 4,
        splits: SplitSizes = _DEFAULT_SPLITS,
        max_steps: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__(max_steps=max_steps)
        if not 1 <= depth <= len(KINDS):
            raise ConfigError(f"depth must be 1 to {len(KINDS)}, got {depth}")
        if not 2 <= num_actions <= len(KINDS[0][1]):
            raise ConfigError(f"num_actions must be 2 to {len(KINDS[0][1])}, got {num_actions}")
        if splits.total >= num_actions**depth:
            raise ConfigError(
                f"{splits.total} toy tasks asked for, but {num_actions} words in {depth} steps "
                f"make {num_actions**depth - 1}; lower splits or raise depth or num_actions"
            )
        self.depth = depth
        self.num_actions = num_actions
        self.seed = seed
        targets = [self._target(index) for index in range(num_actions**depth)]
        everything = SplitSizes(
            train=len(targets) - splits.valid - splits.test, valid=splits.valid, test=splits.test
        )
        dealt = draw_splits(targets, everything, seed)
        self._example_target = dealt["train"].pop()
        dealt["train"] = dealt["train"][: splits.train]
        self._tasks = {
            split: [self._make_task(target, split) for target in dealt[split]] for split in dealt
        }

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of ``train``, ``valid`` or ``test``."""
        return tasks_of_split(self._tasks, split, self.name)

    def instructions(self) -> str:
        """Return the rule of the game."""
        return "Pick the words you are asked for, one per step, in order. Command: pick[word]."

    def data_hash(self) -> str:
        """Return a hash of the words, the sizes and the tasks."""
        ids = {split: [task.task_id for task in tasks] for split, tasks in self._tasks.items()}
        content = json.dumps([self.version, self.depth, self.num_actions, ids])
        return hashlib.sha256(content.encode()).hexdigest()

    def settings(self) -> dict[str, Any]:
        """Return the base settings, the sizes and the seed."""
        sizes = {"depth": self.depth, "num_actions": self.num_actions, "seed": self.seed}
        return {**super().settings(), **sizes}

    def examples(self) -> Sequence[Trajectory]:
        """Return one solved episode of a target that is in no split."""
        twin = self.fork()
        twin.reset(self._make_task(self._example_target, "example"))
        for word in self._example_target:
            twin.step(f"Thought: The next word I was asked for is {word}.\nAction: pick[{word}]")
        return (twin.trajectory,)

    def optimal_q(self, actions: Sequence[str]) -> float:
        """Return the reward after these actions if every later one is optimal.

        With m right words among the l legal picks so far and enough steps left for the rest,
        that is ``(m + depth - l) / depth``; with too few steps left it is 0. Invalid actions
        only use up steps.

        Args:
            actions: A prefix of an episode of the current task, whole messages or bare commands.
        """
        target = self._wanted()
        picks: list[str] = []
        for action in actions:
            word = self._legal_word(parse_command(action) or "", len(picks))
            if word is not None:
                picks.append(word)
        missing = self.depth - len(picks)
        if missing > self.max_steps - len(actions):
            return 0.0
        return (self._num_right(picks, target) + missing) / self.depth

    def _start(self, task: Task) -> Observation:
        self._state = ()
        return self._observe(f"{task.instruction}\n", 0)

    def _act(self, command: str) -> Outcome:
        picks: tuple[str, ...] = self._state
        word = self._legal_word(command, len(picks))
        if word is None:
            return Outcome(observation=self._invalid_observation(command), valid=False)
        picks += (word,)
        self._state = picks
        if len(picks) < self.depth:
            return Outcome(observation=self._observe("", len(picks)))
        reward = self._num_right(picks, self._wanted()) / self.depth
        return Outcome(observation=Observation(text="Done."), reward=reward, terminated=True)

    def _observe(self, lead: str, position: int) -> Observation:
        kind, words = KINDS[position][0], self._words(position)
        return Observation(
            text=f"{lead}{kind}: {', '.join(words)}",
            admissible=tuple(f"pick[{word}]" for word in words),
        )

    def _words(self, position: int) -> tuple[str, ...]:
        return KINDS[position][1][: self.num_actions]

    def _legal_word(self, command: str, position: int) -> str | None:
        call = parse_call(command)
        if call is None or call.verb != "pick" or position >= self.depth:
            return None
        return call.argument if call.argument in self._words(position) else None

    def _wanted(self) -> tuple[str, ...]:
        return tuple(self.task.data["target"])

    def _target(self, index: int) -> tuple[str, ...]:
        """Return the target whose number, written in base ``num_actions``, is the index."""
        digits = [
            index // self.num_actions**place % self.num_actions for place in range(self.depth)
        ]
        return tuple(self._words(place)[digit] for place, digit in enumerate(digits))

    @staticmethod
    def _make_task(target: tuple[str, ...], split: str) -> Task:
        return Task(
            task_id="toy-" + "-".join(target),
            instruction=f"Pick {', then '.join(target)}.",
            split=split,
            data={"target": list(target)},
        )

    @staticmethod
    def _num_right(picks: Sequence[str], target: Sequence[str]) -> int:
        return sum(word == wanted for word, wanted in zip(picks, target, strict=False))

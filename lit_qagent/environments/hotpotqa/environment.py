"""HotPotQA as a world: search pages, look words up, finish with an answer."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lit_qagent.core.actions import parse_call
from lit_qagent.core.errors import ConfigError, DataError
from lit_qagent.core.records import Observation, Task, Trajectory
from lit_qagent.environments.base import Environment, Outcome
from lit_qagent.environments.docstore import Docstore, Page
from lit_qagent.environments.hotpotqa.answers import exact_match, f1_score
from lit_qagent.environments.hotpotqa.candidates import SHOWN_SENTENCES, list_candidates
from lit_qagent.environments.hotpotqa.examples import EXAMPLE_DOCSTORE, EXAMPLES
from lit_qagent.environments.hotpotqa.files import SOURCE, QuestionFile, read_questions
from lit_qagent.environments.splits import tasks_of_split

_PATTERN = r"(Search|Lookup|Finish)\[[^\[\]\n]{1,100}\]"
_INSTRUCTIONS = """\
Answer the question with the help of a collection of encyclopedia pages. Commands:
Search[title] opens the page of that title and shows its first sentences, or lists similar titles.
Lookup[word] shows the next sentence of the open page that contains the word.
Finish[answer] ends with your answer, as short as possible: a name, a date, a number, yes or no."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What one branch has read; never shared between branches.

    Attributes:
        opened: Titles in the order of their last opening; the last one is the open page.
        keyword: Word of the running look-up.
        num_shown: Results of the running look-up shown so far.
        similar: Titles offered by the last search, if it found no page.
    """

    opened: tuple[str, ...] = ()
    keyword: str = ""
    num_shown: int = 0
    similar: tuple[str, ...] = ()


class HotPotQA(Environment):
    """Questions that need two pages; the reward is for the answer given to ``Finish``.

    Args:
        data: Split name to a JSON file in the official distractor form; the pages of all files
            together are what can be searched.
        max_steps: Step limit.
        reward: ``em`` (exact match, the default to judge by) or ``f1``.
        actions: ``open``: the model writes any command. ``listed``: every observation lists
            candidate commands made from the question and the pages read, for very small models.
        max_candidates: Most commands listed.
    """

    name = "hotpotqa"
    version = "1"

    def __init__(
        self,
        *,
        data: Mapping[str, str],
        max_steps: int = 7,
        reward: Literal["em", "f1"] = "em",
        actions: Literal["open", "listed"] = "open",
        max_candidates: int = 24,
    ) -> None:
        super().__init__(max_steps=max_steps)
        if not data:
            raise ConfigError(f"hotpotqa.data names no file, expected split: path; {SOURCE}")
        if max_candidates < 6:
            raise ConfigError(f"max_candidates must be >= 6, got {max_candidates}")
        self.reward = reward
        self.action_mode = actions
        self.max_candidates = max_candidates
        files = {split: read_questions(Path(path)) for split, path in data.items()}
        self._tasks = _make_tasks(files, data)
        self._docstore = Docstore(
            page
            for file in files.values()
            for question in file.questions
            for page in question.pages
        )
        hashes = "\n".join(f"{split} {file.sha256}" for split, file in sorted(files.items()))
        self._data_hash = hashlib.sha256(hashes.encode()).hexdigest()

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the questions of a split in the file's order."""
        return tasks_of_split(self._tasks, split, self.name)

    def instructions(self) -> str:
        """Return what the three commands do."""
        return _INSTRUCTIONS

    def data_hash(self) -> str:
        """Return a hash of the files' content and of which split each is."""
        return self._data_hash

    def settings(self) -> dict[str, Any]:
        """Return the base settings, the reward, the action mode and the docstore's size."""
        return {
            **super().settings(),
            "reward": self.reward,
            "actions": self.action_mode,
            "max_candidates": self.max_candidates,
            "num_pages": len(self._docstore),
            "num_conflicting_pages": self._docstore.num_conflicts,
        }

    def examples(self) -> Sequence[Trajectory]:
        """Return two solved questions about invented facts."""
        solved = []
        for example in EXAMPLES:
            twin = self.fork()
            twin._docstore = EXAMPLE_DOCSTORE
            twin.max_steps = len(example.actions)
            twin.reset(example.task)
            for action in example.actions:
                twin.step(action)
            solved.append(twin.trajectory)
        return solved

    def _start(self, task: Task) -> Observation:
        self._state = Reading()
        return self._observe(f"Question: {task.instruction}")

    def _act(self, command: str) -> Outcome:
        call = parse_call(command)
        if call is None or not call.argument:
            return self._refuse(command, "")
        if call.verb == "search":
            return self._search(call.argument)
        if call.verb == "lookup":
            return self._lookup(command, call.argument)
        if call.verb == "finish":
            return self._finish(call.argument)
        return self._refuse(command, "")

    def _metrics_at_limit(self) -> Mapping[str, float]:
        return {"em": 0.0, "f1": 0.0}

    def _search(self, title: str) -> Outcome:
        page = self._docstore.find(title)
        if page is None:
            similar = tuple(self._docstore.similar(title))
            self._state = replace(self._state, similar=similar)
            return Outcome(
                observation=self._observe(
                    f"Could not find {title}. Similar: [{'; '.join(similar)}]."
                )
            )
        earlier = tuple(name for name in self._state.opened if name != page.title)
        self._state = Reading(opened=(*earlier, page.title))
        shown = " ".join(page.sentences[:SHOWN_SENTENCES])
        return Outcome(observation=self._observe(shown or "The page has no text."))

    def _lookup(self, command: str, keyword: str) -> Outcome:
        if not self._state.opened:
            return self._refuse(command, ". No page is open; use Search first.")
        needle = keyword.casefold()
        sentences = self._pages()[-1].sentences
        hits = [sentence for sentence in sentences if needle in sentence.casefold()]
        shown = self._state.num_shown if needle == self._state.keyword else 0
        if shown < len(hits):
            text = f"(Result {shown + 1} / {len(hits)}) {hits[shown]}"
            following = shown + 1
        else:
            text, following = ("No more results." if hits else "No results."), 0
        self._state = replace(self._state, keyword=needle, num_shown=following)
        return Outcome(observation=self._observe(text))

    def _finish(self, answer: str) -> Outcome:
        gold = str(self.task.data["answer"])
        metrics = {"em": exact_match(answer, gold), "f1": f1_score(answer, gold)}
        return Outcome(
            observation=Observation(text="Answer received."),
            reward=metrics[self.reward],
            terminated=True,
            metrics=metrics,
        )

    def _refuse(self, command: str, reason: str) -> Outcome:
        observation = self._invalid_observation(command)
        return Outcome(
            observation=replace(observation, text=observation.text + reason), valid=False
        )

    def _observe(self, text: str) -> Observation:
        if self.action_mode == "open":
            return Observation(text=text, pattern=_PATTERN)
        candidates = list_candidates(
            self.task.instruction,
            self._pages(),
            self._state.similar,
            self._docstore,
            self.max_candidates,
        )
        return Observation(text=text, admissible=candidates)

    def _pages(self) -> list[Page]:
        """Return the pages this branch opened, the open one last."""
        pages = (self._docstore.find(title) for title in self._state.opened)
        return [page for page in pages if page is not None]


def _make_tasks(
    files: Mapping[str, QuestionFile], paths: Mapping[str, str]
) -> dict[str, list[Task]]:
    """Turn questions into tasks.

    Raises:
        DataError: A question comes twice.
    """
    home: dict[str, str] = {}
    tasks: dict[str, list[Task]] = {}
    for split, file in files.items():
        tasks[split] = []
        for question in file.questions:
            if question.question_id in home:
                raise DataError(
                    f"HotPotQA question {question.question_id!r} is in split "
                    f"{home[question.question_id]!r} and again in split {split!r} "
                    f"({paths[split]}); give every split its own questions"
                )
            home[question.question_id] = split
            tasks[split].append(
                Task(
                    task_id=question.question_id,
                    instruction=question.question,
                    split=split,
                    data={
                        "answer": question.answer,
                        "type": question.kind,
                        "level": question.level,
                    },
                )
            )
    return tasks

"""HotPotQA as a world: search pages, look words up, finish with an answer."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from lit_qagent.core.actions import parse_call
from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import Observation, Task, Trajectory
from lit_qagent.core.text import clean_line
from lit_qagent.environments.base import Environment, Outcome
from lit_qagent.environments.docstore import Docstore, Page, PageSource
from lit_qagent.environments.hotpotqa.answers import exact_match, f1_score
from lit_qagent.environments.hotpotqa.candidates import SHOWN_SENTENCES, list_candidates
from lit_qagent.environments.hotpotqa.examples import EXAMPLE_DOCSTORE, EXAMPLES
from lit_qagent.environments.hotpotqa.files import SOURCE, QuestionFile, read_questions
from lit_qagent.environments.hotpotqa.splits import (
    IndexList,
    check_manifest,
    describe_splits,
    make_tasks,
)
from lit_qagent.environments.splits import tasks_of_split

_PATTERN = r"(Search|Lookup|Finish)\[[^\[\]\n]{1,100}\]"
_LONGEST_TITLE = 100
_INSTRUCTIONS = """\
Answer the question by reading encyclopedia pages; most questions need facts from two of them.
Commands:
Search[title] opens the page of that title and shows its first sentences. A title is the name of \
one person, place, work or thing. If no page has it, you are shown similar titles to choose from.
Lookup[word] shows the next sentence of the open page that contains the word; repeat it for more.
Finish[answer] ends with your answer, as short as possible: the name, date or number asked for, \
as the pages write it, or yes or no. You have one try.
There are {max_steps} commands in all, so answer with what you know before they run out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What one branch has read; never changed, so a fork may start from the same object.

    Attributes:
        opened: Pages in the order of their last opening; the last one is the open page.
        keyword: Word of the running look-up.
        num_shown: Results of the running look-up shown so far.
        similar: Titles offered by the last search, if it found no page.
    """

    opened: tuple[Page, ...] = ()
    keyword: str = ""
    num_shown: int = 0
    similar: tuple[str, ...] = ()

    def __deepcopy__(self, memo: object) -> Self:
        return self


class HotPotQA(Environment):
    """Questions that need two pages; the reward is for the answer given to ``Finish``.

    Args:
        data: Split name to its questions: a JSON file in the official distractor or fullwiki
            form, a Parquet file or a folder of them, a folder written by ``save_to_disk``, or
            ``hf:owner/name/config/split`` on the hub.
        pages: What can be searched; by default the paragraphs of all files together.
        index_lists: Further splits, chosen from those of ``data`` by position.
        manifest: JSON file that names every split's size and hashes; written if it is missing,
            else a split that differs from it is refused.
        max_steps: Step limit.
        reward: ``em`` (exact match, the default to judge by) or ``f1``.
        actions: ``open``: the model writes any command. ``listed``: every observation lists
            candidate commands made from the question and the pages read, for very small models.
        max_candidates: Most commands listed.
        max_characters: Longest observation; a longer one is cut and says so.
    """

    name = "hotpotqa"
    version = "2"

    def __init__(  # noqa: PLR0913 (every argument is an option in YAML)
        self,
        *,
        data: Mapping[str, str],
        pages: PageSource | None = None,
        index_lists: Mapping[str, IndexList] | None = None,
        manifest: str | None = None,
        max_steps: int = 7,
        reward: Literal["em", "f1"] = "em",
        actions: Literal["open", "listed"] = "open",
        max_candidates: int = 24,
        max_characters: int = 2000,
    ) -> None:
        super().__init__(max_steps=max_steps)
        if not data:
            raise ConfigError(f"hotpotqa.data names no file, expected split: path; {SOURCE}")
        if max_candidates < 6:
            raise ConfigError(f"max_candidates must be >= 6, got {max_candidates}")
        if max_characters < 200:
            raise ConfigError(f"max_characters must be >= 200, got {max_characters}")
        self.reward = reward
        self.action_mode = actions
        self.max_candidates = max_candidates
        self.max_characters = max_characters
        files = {
            split: read_questions(path, needs_pages=pages is None) for split, path in data.items()
        }
        self._tasks = make_tasks(files, data, index_lists or {})
        self._splits = describe_splits(self._tasks, files)
        if manifest is not None:
            check_manifest(Path(manifest), self._splits)
        self._docstore = pages if pages is not None else _paragraphs_of(files)
        described = [self._splits, "local" if pages is None else pages.settings()]
        self._data_hash = hashlib.sha256(json.dumps(described).encode()).hexdigest()

    @property
    def blocks(self) -> bool:
        """True if the pages come over a network."""
        return self._docstore.waits

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the questions of a split in the file's order."""
        return tasks_of_split(self._tasks, split, self.name)

    def instructions(self) -> str:
        """Return what the three commands do, and how many may be given."""
        return _INSTRUCTIONS.format(max_steps=self.max_steps)

    def data_hash(self) -> str:
        """Return a hash of the files' content and splits, and of where live pages come from."""
        return self._data_hash

    def settings(self) -> dict[str, Any]:
        """Return the base settings, the splits, the pages and how they are shown."""
        return {
            **super().settings(),
            "reward": self.reward,
            "actions": self.action_mode,
            "max_candidates": self.max_candidates,
            "max_characters": self.max_characters,
            **self._docstore.settings(),
            "splits": self._splits,
        }

    def examples(self) -> Sequence[Trajectory]:
        """Return three solved questions about invented facts."""
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
        command = clean_line(command)
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

    def _invalid_observation(self, command: str) -> Observation:
        return super()._invalid_observation(clean_line(command))

    def _search(self, title: str) -> Outcome:
        page = self._docstore.find(title)
        if page is None:
            similar = tuple(self._docstore.similar(title))
            self._state = replace(self._state, similar=similar)
            shown = title if len(title) <= _LONGEST_TITLE else title[: _LONGEST_TITLE - 3] + "..."
            return Outcome(
                observation=self._observe(
                    f"Could not find {shown}. Similar: [{'; '.join(similar)}]."
                )
            )
        earlier = tuple(other for other in self._state.opened if other.title != page.title)
        self._state = Reading(opened=(*earlier, page))
        shown = " ".join(page.sentences[:SHOWN_SENTENCES])
        return Outcome(observation=self._observe(shown or "The page has no text."))

    def _lookup(self, command: str, keyword: str) -> Outcome:
        if not self._state.opened:
            return self._refuse(command, ". No page is open; use Search first.")
        needle = keyword.casefold()
        sentences = self._state.opened[-1].sentences
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
        text = _shorten(text, self.max_characters)
        if self.action_mode == "open":
            return Observation(text=text, pattern=_PATTERN)
        candidates = list_candidates(
            self.task.instruction,
            self._state.opened,
            self._state.similar,
            self._docstore,
            self.max_candidates,
        )
        return Observation(text=text, admissible=candidates)


def _paragraphs_of(files: Mapping[str, QuestionFile]) -> Docstore:
    questions = (question for file in files.values() for question in file.questions)
    return Docstore(page for question in questions for page in question.pages)


def _shorten(text: str, limit: int) -> str:
    """Return a text of at most ``limit`` characters that says how much of it is missing."""
    if len(text) <= limit:
        return text
    kept = limit - 50  # room for the note
    return f"{text[:kept]}... [{len(text) - kept} more characters are not shown]"

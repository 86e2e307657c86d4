"""A world on a running original WebShop server: pages are fetched by HTTP, rewards are its own.

The server's addresses hold all that an episode depends on (query, page, product, options), so a
branch is a copy of these values; a sibling's clicks cannot change it, and no request is repeated.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import quote

from lit_qagent.core.actions import Call, parse_call
from lit_qagent.core.errors import ConfigError, EnvironmentFailure
from lit_qagent.core.records import Observation, Task
from lit_qagent.environments.base import Environment, Outcome
from lit_qagent.environments.webshop.engine import BACK, BUY, NEXT, PREVIOUS, SUBPAGES
from lit_qagent.environments.webshop.remote_client import RemoteClient, RemoteSpec
from lit_qagent.environments.webshop.remote_page import RemotePage, parse_page

_SEARCH_PATTERN = r"search\[[^\[\]\n]{1,80}\]"
_SUBPAGES = {name.lower() for name in (*SUBPAGES, "Attributes")}
_MAX_QUERY_CHARS = 1_000  # servers refuse longer addresses
_NUM_HASHED = 20  # instructions of each split that stand for the server's data
_DEFAULT_REMOTE = RemoteSpec()
# The 500 test goals and the first of the training goals of the original, as [first, end).
_DEFAULT_SESSIONS = {"train": (1500, 1600), "valid": (500, 520), "test": (0, 100)}

PageType = Literal["start", "results", "item", "subpage", "end"]


@dataclass(frozen=True, kw_only=True)
class RemoteState:
    """What a page's address is made of, and the page.

    Attributes:
        session: The server's name for the episode; ``fixed_7`` is goal 7.
        kind: Which kind of page.
        words: The words searched for.
        page_number: Page of the results, from 1.
        asin: The product opened.
        options: Option kind to the value chosen.
        subpage: The sub page shown.
        page: What the server answered.
    """

    session: str
    kind: PageType = "start"
    words: tuple[str, ...] = ()
    page_number: int = 1
    asin: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    subpage: str = ""
    page: RemotePage = field(default_factory=lambda: RemotePage(parts=()))

    def __deepcopy__(self, memo: object) -> "RemoteState":
        return self  # nothing of it ever changes, and pages are long

    def path(self) -> str:
        """Return the address on the server, without its name."""
        query = (list(self.words), self.page_number)
        values: dict[PageType, tuple[object, ...]] = {
            "start": (self.session,),
            "results": ("search_results", self.session, *query),
            "item": ("item_page", self.session, self.asin, *query, dict(self.options)),
            "subpage": (
                *("item_sub_page", self.session, self.asin, *query, self.subpage),
                dict(self.options),
            ),
            "end": ("done", self.session, self.asin, dict(self.options)),
        }
        return "".join(f"/{quote(str(value), safe='')}" for value in values[self.kind])


class RemoteWebShop(Environment):
    """The original shop, on its own server.

    Args:
        remote: How the server is reached.
        sessions: Split to the range of goal numbers ``[first, end)`` that are its tasks.
        observation: ``text``: WebShop's text form. ``brackets``: the form of ReAct and LATS.
        max_steps: Step limit.
    """

    name = "webshop-remote"
    version = "1"

    def __init__(
        self,
        *,
        remote: RemoteSpec = _DEFAULT_REMOTE,
        sessions: Mapping[str, tuple[int, int]] = _DEFAULT_SESSIONS,
        observation: Literal["text", "brackets"] = "text",
        max_steps: int = 15,
    ) -> None:
        super().__init__(max_steps=max_steps)
        for split, (first, end) in sessions.items():
            if not 0 <= first < end:
                raise ConfigError(
                    f"sessions.{split} must be [first, end] with 0 <= first < end, "
                    f"got [{first}, {end}]"
                )
        self.remote = remote
        self.sessions = dict(sessions)
        self.observation_form = observation
        self._client = RemoteClient(remote)
        self._instructions: dict[str, str] = {}

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of a split; the server is asked for each instruction, once."""
        if split not in self.sessions:
            raise ConfigError(
                f"webshop-remote has no split {split!r}, only {', '.join(self.sessions)}"
            )
        return [self._make_task(number, split) for number in range(*self.sessions[split])]

    def instructions(self) -> str:
        """Return how to shop."""
        buttons = ", ".join((BUY, *SUBPAGES, NEXT, PREVIOUS, BACK))
        return (
            "Buy the product that fits the instruction: open it, choose the options asked for, "
            "then buy.\n"
            "Commands: search[words] on the search page; click[x] with x a product code, an "
            f"option value or a button: {buttons}."
        )

    def data_hash(self) -> str:
        """Return a hash of the splits and of some of the server's instructions.

        The server's products cannot be seen from outside.
        """
        asked = {
            split: [
                self._instruction(number) for number in range(first, min(end, first + _NUM_HASHED))
            ]
            for split, (first, end) in self.sessions.items()
        }
        content = json.dumps([self.version, self.observation_form, self.sessions, asked])
        return hashlib.sha256(content.encode()).hexdigest()

    def settings(self) -> dict[str, Any]:
        """Return the base settings, the splits and the form of the pages."""
        splits = {split: list(ends) for split, ends in self.sessions.items()}
        return {**super().settings(), "sessions": splits, "observation": self.observation_form}

    def _make_task(self, number: int, split: str) -> Task:
        return Task(
            task_id=f"webshop-{_session(number)}",
            instruction=self._instruction(number),
            split=split,
            data={"session": _session(number)},
        )

    def _instruction(self, number: int) -> str:
        session = _session(number)
        if session not in self._instructions:
            self._instructions[session] = self._fetch(RemoteState(session=session)).page.instruction
        return self._instructions[session]

    def _fetch(self, state: RemoteState) -> RemoteState:
        """Return the state with its page.

        Raises:
            EnvironmentFailure: The server does not answer, or with something else than a shop.
        """
        page = parse_page(self._client.get(state.path()))
        if state.kind != "end" and not page.instruction:
            raise EnvironmentFailure(
                f"the page {self.remote.base_url}{state.path()[:200]} has no instruction; is it "
                "an original WebShop server?"
            )
        return replace(state, page=page)

    def _start(self, task: Task) -> Observation:
        self._state = self._fetch(RemoteState(session=str(task.data["session"])))
        return self._observe(self._render())

    def _act(self, command: str) -> Outcome:
        call = parse_call(command)
        following = self._follow(call) if call else None
        if following is None:
            return Outcome(observation=self._invalid_observation(command), valid=False)
        self._state = self._fetch(following)
        if following.kind != "end":
            return Outcome(observation=self._observe(self._render()))
        reward = self._state.page.reward()
        return Outcome(observation=Observation(text=self._render()), reward=reward, terminated=True)

    def _follow(self, call: Call) -> RemoteState | None:
        """Return where a command leads, its page not fetched yet; None if it is not legal."""
        state: RemoteState = self._state
        if call.verb == "search" and state.kind == "start":
            if len(call.argument) > _MAX_QUERY_CHARS:
                return None
            # A slash would end the address; to the search it is a blank anyway.
            words = tuple(call.argument.lower().replace("/", " ").split())
            return (
                RemoteState(session=state.session, kind="results", words=words) if words else None
            )
        if call.verb != "click":
            return None
        wanted = call.argument.strip().lower()
        for part in self._clickables():
            if part.text.lower() == wanted:
                if part.kind == "product":
                    return replace(state, kind="item", asin=part.text, options={})
                if part.kind == "option":
                    options = {**state.options, part.option_kind: part.text}
                    return replace(state, options=options)
                return _press(state, wanted)
        return None

    def _clickables(self) -> list[Any]:
        """Return the parts of the page that a click leads on from."""
        state: RemoteState = self._state
        kinds = {"results": "product", "item": "option"}
        return [
            part
            for part in state.page.clickables()
            if part.kind == kinds.get(state.kind)
            or (part.kind == "button" and _press(state, part.text.lower()) is not None)
        ]

    def _render(self) -> str:
        state: RemoteState = self._state
        if self.observation_form == "text":
            return state.page.as_text()
        chosen = frozenset(state.options.values())
        return state.page.as_brackets(chosen, with_instruction=state.kind == "start")

    def _observe(self, text: str) -> Observation:
        state: RemoteState = self._state
        if state.kind == "start":
            return Observation(text=text, pattern=_SEARCH_PATTERN)
        commands = tuple(f"click[{part.text.lower()}]" for part in self._clickables())
        return Observation(text=text, admissible=commands)


def _session(number: int) -> str:
    return f"fixed_{number}"


def _press(state: RemoteState, button: str) -> RemoteState | None:
    """Return where a button, in lower case, leads from a page; None if nowhere."""
    kind = state.kind
    if button == BACK.lower() and kind != "start":
        return RemoteState(session=state.session)
    if kind == "results" and button == NEXT.lower():
        return replace(state, page_number=state.page_number + 1)
    if kind == "results" and button == PREVIOUS.lower() and state.page_number > 1:
        return replace(state, page_number=state.page_number - 1)
    if kind == "subpage" and button == PREVIOUS.lower():
        return replace(state, kind="item", subpage="")
    if kind == "item" and button == PREVIOUS.lower():
        return replace(state, kind="results")
    if kind == "item" and button == BUY.lower():
        return replace(state, kind="end")
    if kind == "item" and button in _SUBPAGES:
        return replace(state, kind="subpage", subpage=button.capitalize())
    return None

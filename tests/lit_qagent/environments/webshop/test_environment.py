import random
from dataclasses import replace
from typing import Any

import pytest

from lit_qagent.environments.splits import SplitSizes
from lit_qagent.environments.webshop import WebShop
from lit_qagent.environments.webshop.catalog import CatalogSpec
from lit_qagent.environments.webshop.engine import PageSpec
from lit_qagent.environments.webshop.examples import solve

# The easy shop: small enough that buying by chance sometimes succeeds.
EASY: dict[str, Any] = {
    "catalog": CatalogSpec(num_products=60, values_per_option=2, goal_attributes=1),
    "splits": SplitSizes(train=100, valid=20, test=40),
    "pages": PageSpec(
        page_size=4, max_results=4, search="listed", subpages=False, back_buttons=False
    ),
    "max_steps": 8,
}


def make_world(**changes: object) -> WebShop:
    settings: dict[str, Any] = {**EASY, **changes}
    world = WebShop(**settings)
    world.reset(world.tasks("train")[0])
    return world


@pytest.mark.parametrize("pages", [PageSpec(), EASY["pages"]])
def test_every_task_can_be_solved(pages: PageSpec) -> None:
    sizes = SplitSizes(train=200, valid=0, test=0)
    world = WebShop(catalog=CatalogSpec(num_products=100), splits=sizes, pages=pages, max_steps=60)
    assert [solve(world, task).reward for task in world.tasks("train")] == [1.0] * 200


def test_listed_queries_reach_the_goal_on_the_first_page() -> None:
    pages = PageSpec(page_size=5, search="listed", subpages=False)
    sizes = SplitSizes(train=200, valid=0, test=0)
    world = WebShop(catalog=CatalogSpec(num_products=300), splits=sizes, pages=pages, max_steps=5)
    played = [solve(world, task) for task in world.tasks("train")]
    # Five steps: search, product, two options, buy.
    assert sum(trajectory.success for trajectory in played) >= 180


def test_a_purchase_pays_and_reports_the_parts() -> None:
    world = make_world()
    trajectory = solve(world, world.task)
    assert trajectory.reward == 1.0
    assert trajectory.steps[-1].metrics == {
        "r_type": 1.0,
        "r_att": 1.0,
        "r_option": 1.0,
        "r_price": 1.0,
    }


def test_an_episode_without_purchase_has_zero_metrics() -> None:
    world = make_world(max_steps=1)
    step = world.step((world.observation.admissible or ("",))[0])
    assert step.truncated
    assert step.metrics == {"r_type": 0.0, "r_att": 0.0, "r_option": 0.0, "r_price": 0.0}


def test_a_purchase_in_one_branch_changes_no_other() -> None:
    """Mistakes 1 and 2 of the original, in the shop."""
    world = make_world()
    world.step((world.observation.admissible or ("",))[0])
    world.step((world.observation.admissible or ("",))[0])
    before = world.observation
    buyer = world.fork()
    buyer.step((before.admissible or ("",))[0])
    assert buyer.step("click[Buy Now]").terminated
    assert not world.is_over
    assert "(chosen)" not in world.step("click[Features]").observation.text
    assert world.observation.admissible == before.admissible


@pytest.mark.parametrize(
    "action",
    ["", "search[]", "search[ ]", "click[]", "click[red: [x]]", "buy now", "search", "think[a]"],
)
def test_malformed_actions_keep_the_page(action: str) -> None:
    """Mistake 9 of the original."""
    world = make_world()
    before = world.observation
    step = world.step(action)
    assert not step.valid
    assert step.observation.text == f"Invalid action: {action}"
    assert step.observation.admissible == before.admissible


def test_searching_is_for_the_search_page() -> None:
    world = make_world()
    world.step("search[shirt]")
    assert not world.step("search[shirt]").valid


def test_the_search_page_offers_queries_or_a_pattern() -> None:
    listed = make_world().observation
    assert listed.pattern is None
    assert all(command.startswith("search[") for command in listed.admissible or ())
    opened = make_world(pages=PageSpec()).observation
    assert opened.admissible is None
    assert opened.pattern is not None


def test_compact_observations_are_short_and_name_the_task_once() -> None:
    world = make_world()
    assert world.observation.text == f"Instruction: {world.task.instruction}"
    texts = [step.observation.text for step in solve(world, world.task).steps]
    assert max(map(len, texts)) < 250
    assert not any("price lower than" in text for text in texts)


def test_examples_are_solved_and_come_from_another_catalogue() -> None:
    world = make_world()
    examples = world.examples()
    assert [example.success for example in examples] == [True, True]
    ids = {task.task_id for split in ("train", "valid", "test") for task in world.tasks(split)}
    assert not ids & {example.task_id for example in examples}


def test_instructions_name_the_buttons_there_are() -> None:
    pages = PageSpec(subpages=False, back_buttons=False)
    assert make_world(pages=pages).instructions().endswith("a button: Buy Now, Next >.")
    assert "Features, Reviews, Next >, < Prev, Back to Search." in WebShop().instructions()


def test_instructions_name_no_button_to_models_that_pick_from_a_list() -> None:
    assert "Buy Now" not in make_world().instructions()


def test_final_options_are_not_offered_again() -> None:
    world = make_world(pages=replace(EASY["pages"], final_options=True))
    product_code = world.step(world.observation.admissible[0]).observation.admissible[0]  # type: ignore[index]
    page = world.step(product_code).observation
    assert page.admissible is not None
    first, second = page.admissible[:2]  # the two values of the first kind
    after = world.step(first).observation
    assert after.admissible == page.admissible[2:]
    assert not world.step(second).valid


def test_the_hash_follows_everything_that_is_seen() -> None:
    worlds = [
        make_world(),
        make_world(),
        make_world(pages=PageSpec()),
        make_world(catalog=CatalogSpec(num_products=60, seed=1)),
    ]
    hashes = [world.data_hash() for world in worlds]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
    assert worlds[0].settings()["title_nouns"] == "title words without stop words, colors and sizes"


def test_random_clicks_succeed_sometimes_in_the_easy_shop() -> None:
    world = make_world()
    rng = random.Random(0)
    rewards = []
    for task in [*world.tasks("train")] * 5:
        world.reset(task)
        while not world.is_over:
            world.step(rng.choice(world.observation.admissible or ()))
        rewards.append(world.trajectory.reward)
    assert 0.2 < sum(rewards) / len(rewards) < 0.45
    assert 0.01 < sum(reward == 1.0 for reward in rewards) / len(rewards) < 0.08

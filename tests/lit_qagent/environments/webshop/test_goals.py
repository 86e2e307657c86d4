import pytest

from lit_qagent.core.errors import ConfigError
from lit_qagent.environments.splits import SplitSizes
from lit_qagent.environments.webshop.catalog import CatalogSpec, generate_catalog
from lit_qagent.environments.webshop.goals import Goal, draw_goals
from tests.lit_qagent.environments.webshop.shop_parts import SHIRT, make_goal

SIZES = SplitSizes(train=60, valid=20, test=20)


def test_a_goal_survives_its_task() -> None:
    goal = make_goal()
    task = goal.to_task("train")
    assert Goal.from_task(task) == goal
    assert task.instruction == goal.instruction
    assert task.task_id != make_goal(price_upper=50.0).to_task("train").task_id


def test_splits_share_no_id_and_no_product_with_options() -> None:
    """Mistake 8 of the original: train and test lists overlapped."""
    spec = CatalogSpec(num_products=20)
    tasks = draw_goals(generate_catalog(spec), SIZES, spec, hidden_attributes=True)
    everything = [task for split in tasks.values() for task in split]
    keys = {(task.data["asin"], tuple(sorted(task.data["options"].items()))) for task in everything}
    assert len({task.task_id for task in everything}) == len(keys) == 100


def test_goals_are_the_same_in_every_process() -> None:
    """Mistake 8 of the original: goals and price limits were drawn without a seed."""
    spec = CatalogSpec(num_products=20)
    tasks = draw_goals(generate_catalog(spec), SIZES, spec, hidden_attributes=False)
    first = tasks["test"][0]
    assert first.task_id == "shop-f09be0970807"
    assert first.instruction == (
        "i need an organic dairy free syrup with honey flavor in sampler pack, "
        "and price lower than 50.00 dollars"
    )


def test_the_limit_is_a_multiple_of_ten_up_to_forty_above_the_price() -> None:
    spec = CatalogSpec(num_products=40)
    products = generate_catalog(spec)
    prices = {product.asin: product.price for product in products}
    tasks = draw_goals(products, SIZES, spec, hidden_attributes=False)["train"]
    for task in tasks:
        above = task.data["price_upper"] - prices[task.data["asin"]]
        assert task.data["price_upper"] % 10 == 0
        assert 0 < above <= 40


@pytest.mark.parametrize("num_attributes", [0, 1, 2])
def test_goals_ask_for_what_the_title_shows(num_attributes: int) -> None:
    spec = CatalogSpec(num_products=20, goal_attributes=num_attributes)
    products = generate_catalog(spec)
    titles = {product.asin: product.title for product in products}
    for task in draw_goals(products, SIZES, spec, hidden_attributes=False)["train"]:
        assert len(task.data["attributes"]) == num_attributes
        assert all(name in titles[task.data["asin"]] for name in task.data["attributes"])


def test_instructions_name_everything_asked_for() -> None:
    spec = CatalogSpec(num_products=60, num_options=3, goal_attributes=1)
    tasks = draw_goals(generate_catalog(spec), SIZES, spec, hidden_attributes=True)["train"]
    for task in tasks:
        wanted = [*task.data["attributes"], *task.data["options"].values(), task.data["query"]]
        assert all(f" {word}" in task.instruction for word in wanted)
        assert task.instruction.endswith(f"lower than {task.data['price_upper']:.2f} dollars")


def test_too_few_combinations_are_refused() -> None:
    with pytest.raises(ConfigError, match="100 shop tasks asked for, but the catalogue has 4"):
        draw_goals([SHIRT], SIZES, CatalogSpec(), hidden_attributes=False)

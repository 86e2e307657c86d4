"""Short pages: what they show, what they offer, and that they stay a world."""

from pathlib import Path
from typing import Any

import pytest

from lit_qagent.core.errors import ConfigError
from lit_qagent.environments.conformance import check_environment
from lit_qagent.environments.webshop import WebShopFiles
from lit_qagent.environments.webshop.queries import whole_query
from lit_qagent.environments.webshop.small_pages import SmallPages, cut_title
from tests.lit_qagent.environments.webshop.official_data import make_official
from tests.lit_qagent.environments.webshop.shop_files import write_files


def make_world(folder: Path, **small: Any) -> WebShopFiles:  # noqa: ANN401
    files = write_files(folder)
    pages = SmallPages(**small)
    return WebShopFiles(**files, goals="synthetic", search="listed", small=pages)


@pytest.mark.parametrize(
    "small", [{}, {"final_options": True}, {"subpages": True, "back_buttons": True}]
)
def test_it_is_a_world(tmp_path: Path, small: dict[str, Any]) -> None:
    check_environment(make_world(tmp_path, **small), "test")


def test_a_perfect_purchase_on_the_official_files() -> None:
    world = make_official(search="listed", small=SmallPages(), max_steps=8)
    check_environment(world, "test", num_tasks=3)
    rewards = []
    for task in world.tasks("test")[:50]:
        first = world.reset(task)
        assert first.admissible is not None
        page = world.step(first.admissible[0]).observation
        numbers = [f"click[{number}]" for number in range(1, 6)]
        assert page.admissible == (*numbers, "click[Next >]")
        assert all(len(line) < 100 for line in page.text.splitlines())
        world.step("click[1]")
        values = world.observation.admissible
        assert values
        assert values[-1] == "click[Buy Now]"
        for value in task.data["options"].values():
            world.step(f"click[{value}]")
        rewards.append(world.step("click[buy now]").reward)
    assert max(rewards) == 1.0
    assert sum(rewards) / len(rewards) > 0.5  # the first product found for the whole instruction


def test_a_chosen_value_ends_its_kind(tmp_path: Path) -> None:
    world = make_world(tmp_path, final_options=True)
    task = world.tasks("test")[0]
    world.reset(task)
    world.step("search[steel kettle]")
    opened = world.step(f"click[{world.label_of(task.data['asin'])}]").observation
    kind, wanted = next(iter(task.data["options"].items()))
    chosen = world.step(f"click[{wanted}]").observation
    assert f"{kind}: {wanted}" in chosen.text
    assert len(chosen.text) < len(opened.text)
    assert chosen.admissible is not None
    assert opened.admissible is not None
    assert set(chosen.admissible) < set(opened.admissible)
    assert f"click[{wanted}]" not in chosen.admissible


def test_the_pages_are_part_of_the_settings(tmp_path: Path) -> None:
    worlds = [make_world(tmp_path), make_world(tmp_path, page_size=3)]
    assert worlds[0].settings()["small"]["page_size"] == 5
    assert worlds[0].data_hash() != worlds[1].data_hash()


def test_titles_are_cut_between_words() -> None:
    assert cut_title("Wall Art for Living Room", 14) == "Wall Art for..."
    assert cut_title("Wall Art", 8) == "Wall Art"
    assert cut_title("Supercalifragilistic", 5) == "Super..."


def test_the_whole_instruction_is_a_query() -> None:
    text = "Find me shirts with size: small, and price lower than 40.00 dollars"
    assert whole_query(text) == "shirts with size: small"
    assert SmallPages().queries(text)[0] == "shirts with size: small"
    assert len(SmallPages(whole_query=False).queries(text)) == 1


def test_a_page_without_products_is_refused() -> None:
    with pytest.raises(ConfigError, match="page_size"):
        SmallPages(page_size=0)

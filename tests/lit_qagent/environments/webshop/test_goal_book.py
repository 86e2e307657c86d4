import itertools
import random
from dataclasses import replace
from pathlib import Path

import pytest

from lit_qagent.core.errors import DataError
from lit_qagent.environments.webshop.goal_book import GoalBook, GoalTasks, Wish, build_book
from lit_qagent.environments.webshop.goals import Goal
from lit_qagent.environments.webshop.wishes import find_products, human_wishes, synthetic_wishes
from tests.lit_qagent.environments.webshop.shop_files import make_instruction
from tests.lit_qagent.environments.webshop.shop_parts import LAMP, SHIRT

PRODUCTS = (SHIRT, LAMP)


def make_wish(**changes: object) -> Wish:
    values = {"position": 0, "number": -1, "words": "a shirt", "attributes": ("soft",)}
    return Wish(**{**values, **changes})  # type: ignore[arg-type]


def make_book(*wishes: Wish, seed: int = 0) -> GoalBook:
    return build_book(PRODUCTS, wishes, random.Random(seed))


def naive_goals(seed: int) -> list[tuple[str, dict[str, str], float]]:
    """The goals of both products by rule, all made at once: codes, options, limits."""
    rng = random.Random(seed)
    goals = []
    for product in PRODUCTS:
        limits = [limit for limit in (10.0 * n for n in range(1, 100)) if limit > product.price]
        limit = sorted(rng.sample(limits[:4], 2))[1]
        kinds = sorted(product.options)
        for values in itertools.product(*(product.options[kind] for kind in kinds)):
            goals.append((product.asin, dict(zip(kinds, values, strict=True)), limit))
    random.Random(233).shuffle(goals)
    return goals


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_goals_made_one_by_one_equal_all_made_at_once(seed: int) -> None:
    book = make_book(make_wish(), make_wish(position=1), seed=seed)
    found = [book.goal(index) for index in range(len(book))]
    assert [(goal.asin, goal.options, goal.price_upper) for goal in found] == naive_goals(seed)


def test_the_words_of_a_synthetic_goal() -> None:
    book = make_book(make_wish())
    texts = {book.goal(index).instruction for index in range(len(book))}
    limit = book.goal(0).price_upper
    assert texts == {
        f"a shirt with color: {color}, and size: {size}, and price lower than {limit:.2f} dollars"
        for color in ("red", "blue")
        for size in ("small", "large")
    }


def test_a_human_goal_asks_for_values_without_kinds() -> None:
    book = make_book(make_wish(number=3, words="my words", values=("red", "size 8")))
    assert len(book) == 1
    task = book.task(0, "test")
    assert task.task_id == "webshop-B100-human-3"
    assert Goal.from_task(task) == book.goal(0)
    assert task.data["options"] == ["red", "size 8"]
    assert task.instruction.startswith("my words, and price lower than ")


def test_a_product_above_every_limit_has_none() -> None:
    dear = replace(SHIRT, price=985.0)
    book = build_book((dear,), [make_wish(number=0)], random.Random(0))
    assert book.goal(0).price_upper == 1_000_000
    assert book.goal(0).instruction == "a shirt"


def test_ids_do_not_depend_on_the_seed_and_prices_do() -> None:
    books = [make_book(make_wish(), make_wish(position=1), seed=seed) for seed in (0, 5)]
    ids = [[book.task(index, "x").task_id for index in range(len(book))] for book in books]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == len(ids[0])
    assert books[0].sha256() != books[1].sha256()
    assert books[0].sha256() == make_book(make_wish(), make_wish(position=1)).sha256()


def test_goals_that_ask_for_the_same_have_one_key() -> None:
    twice = replace(SHIRT, options={"color": ("red", "blue", "red")})
    book = build_book((twice,), [make_wish()], random.Random(0))
    keys = [book.content_key(index) for index in range(3)]
    assert len(set(keys)) == 2
    assert len({book.task(index, "x").task_id for index in range(3)}) == 3


@pytest.mark.parametrize("index", [-1, 4, 10**9])
def test_a_goal_out_of_range_is_refused(index: int) -> None:
    with pytest.raises(DataError, match=f"goal {index} is out of range: there are 4 goals"):
        make_book(make_wish()).goal(index)


def test_no_goals_and_far_too_many_are_refused() -> None:
    with pytest.raises(DataError, match="give no goals at all"):
        make_book()
    huge = replace(SHIRT, options={str(kind): ("a", "b", "c", "d") for kind in range(20)})
    with pytest.raises(DataError, match=f"product 'B100' alone has {4**20} combinations"):
        build_book((huge,), [make_wish()], random.Random(0))


def test_tasks_are_made_when_asked_for() -> None:
    book = make_book(make_wish(), make_wish(position=1))
    tasks = GoalTasks(book, range(1, 5), "valid")
    assert len(tasks) == 4
    assert list(tasks) == [book.task(index, "valid") for index in range(1, 5)]
    assert list(tasks[1:3]) == list(tasks)[1:3]
    assert tasks[-1] == list(tasks)[-1]


def test_instructions_without_attributes_are_left_out_as_in_the_original() -> None:
    records = {"B100": [make_instruction("x", attributes=[]), make_instruction("y.")]}
    [wish] = human_wishes(find_products(PRODUCTS, records), records, Path("h.json"))
    assert (wish.number, wish.words, wish.position) == (1, "y", 0)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({"B100": {"instruction": "x"}}, r"record 'B100': expected a list of instructions"),
        ({"B100": ["x"]}, r"record 'B100\[0\]': expected an object, got 'x'"),
        (
            {"B100": [make_instruction("x"), {"instruction": "x"}]},
            r"record 'B100\[1\]': expected a list of texts 'instruction_attributes', got None",
        ),
        ({"B100": [make_instruction(" ")]}, r"record 'B100\[0\]': expected a text 'instruction'"),
    ],
)
def test_a_human_record_of_another_form_is_named(records: dict[str, object], message: str) -> None:
    found = find_products(PRODUCTS, records)
    with pytest.raises(DataError, match=rf"h\.json, {message}"):
        list(human_wishes(found, records, Path("h.json")))


def test_a_synthetic_record_without_attributes_is_named() -> None:
    notes = {"B100": {"instruction": "x", "instruction_attributes": []}}
    with pytest.raises(DataError, match=r"n\.json, record 'B100': expected at least one"):
        list(synthetic_wishes(find_products(PRODUCTS, notes), notes, Path("n.json")))


def test_products_are_found_alike_by_reading_and_by_a_store() -> None:
    class Store(tuple[object, ...]):
        def find(self, asin: str) -> int | None:
            return {"B100": 0, "B200": 1}.get(asin)

    wanted = {"B200": 1, "B999": 2, "B100": 3}
    expected = [("B100", 0), ("B200", 1)]
    assert find_products(PRODUCTS, wanted) == expected
    assert find_products(Store(PRODUCTS), wanted) == expected  # type: ignore[arg-type]

from collections.abc import Iterator
from pathlib import Path

import pytest

from lit_qagent.core.errors import ConfigError
from lit_qagent.environments.conformance import check_environment
from lit_qagent.environments.splits import SplitSizes
from lit_qagent.environments.text_games.text_game import GameSpec
from lit_qagent.environments.text_games.textworld_cooking import TextWorldCooking
from lit_qagent.environments.text_games.textworld_simulator import clean_text
from tests.lit_qagent.environments.text_games.needs import need_package

need_package("textworld")

SPLITS = SplitSizes(train=2, valid=1, test=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("games")


@pytest.fixture(scope="module")
def world(folder: Path) -> Iterator[TextWorldCooking]:
    game = GameSpec(step_budget=6, num_simulators=2)
    made = TextWorldCooking(folder=str(folder), splits=SPLITS, game=game, max_steps=6)
    yield made
    made.close()


def test_listing_tasks_writes_no_game(tmp_path: Path) -> None:
    world = TextWorldCooking(folder=str(tmp_path), level="d")
    assert [len(world.tasks(split)) for split in ("train", "valid", "test")] == [60, 20, 40]
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'f'.* There are: b, c, d, e"):
        TextWorldCooking(level="f")


def test_levels_and_seeds_are_different_tasks() -> None:
    ids = {
        TextWorldCooking(level=level, seed=seed).tasks("train")[0].task_id
        for level in "bcde"
        for seed in (0, 1)
    }
    assert len(ids) == 8


def test_the_end_of_a_game_asks_nothing() -> None:
    told = "\nYou eat it.\n\n     *** The End ***\n\nYou won.\n\nWould you like to RESTART?\n> "
    assert clean_text(told, "") == "You eat it.\n\n*** The End ***\n\nYou won."


@pytest.mark.integration
def test_it_keeps_the_contract(world: TextWorldCooking) -> None:
    check_environment(world, "train", num_tasks=1)
    assert world.pool.counts.other_texts == 0


@pytest.mark.integration
def test_the_solution_is_paid_in_full(world: TextWorldCooking) -> None:
    solved = world.solve(world.tasks("train")[0])
    assert solved.success
    first = solved.first_observation.text
    assert first.startswith("You are hungry!")
    assert "$$" not in first
    assert "RESTART" not in solved.steps[-1].observation.text


@pytest.mark.integration
def test_a_partial_meal_is_paid_in_part(world: TextWorldCooking) -> None:
    task = world.tasks("train")[0]
    commands = [step.action for step in world.solve(task).steps]
    branch = world.fork()
    branch.game = GameSpec(step_budget=len(commands) - 1)
    branch.reset(task)
    step = [branch.step(command) for command in commands[:-1]][-1]
    assert step.terminated
    assert 0 < step.reward < 1


@pytest.mark.integration
def test_commands_may_be_written_with_articles_and_synonyms(world: TextWorldCooking) -> None:
    branch = world.fork()
    branch.reset(branch.tasks("train")[0])
    assert branch.step("get the cookbook").valid
    assert "examine cookbook" not in (branch.observation.admissible or ())
    assert "Recipe" in branch.step("X cookbook").observation.text
    assert not branch.step("examine unicorn").valid
    for unknown in (
        "save",
        "undo",
        "restart",
        "quit",
        "again",
        "look then look",
        "take",
        "examine it then wait",
    ):
        assert not branch.fork().step(unknown).valid


@pytest.mark.integration
def test_the_same_seed_writes_the_same_game(world: TextWorldCooking, tmp_path: Path) -> None:
    other = TextWorldCooking(folder=str(tmp_path), splits=SPLITS, max_steps=6)
    task = world.tasks("train")[0]
    assert other.fork().reset(task) == world.fork().reset(task)
    assert sorted(file.suffix for file in tmp_path.rglob("*") if file.is_file()) == [".json", ".z8"]
    other.close()

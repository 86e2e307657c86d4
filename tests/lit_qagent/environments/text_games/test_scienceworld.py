import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lit_qagent.core.errors import ConfigError, DataError
from lit_qagent.environments.conformance import (
    check_branches,
    check_malformed,
    check_replay,
    check_step_limit,
    check_tasks,
    check_walk,
    draw_admissible,
)
from lit_qagent.environments.text_games.scienceworld import ScienceWorld
from lit_qagent.environments.text_games.scienceworld_simulator import sort_lists, sort_menu
from lit_qagent.environments.text_games.scienceworld_tasks import NUM_VARIATIONS
from lit_qagent.environments.text_games.text_game import GameSpec
from tests.lit_qagent.environments.text_games.needs import need_java

need_java("scienceworld")


@pytest.fixture(scope="module")
def world() -> Iterator[ScienceWorld]:
    game = GameSpec(step_budget=3, max_listed=3, num_simulators=2)
    made = ScienceWorld(names=["lifespan-longest-lived", "boil"], game=game, max_steps=4)
    yield made
    made.close()


def test_splits_need_no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    world = ScienceWorld()
    sizes = [len(world.tasks(split)) for split in ("train", "dev", "test")]
    # Two variations are shown as examples instead.
    assert sum(sizes) == sum(NUM_VARIATIONS.values()) - 2
    with pytest.raises(ConfigError, match="choose one of train, dev, test"):
        world.tasks("valid")


def test_a_file_s_limits_are_the_games_budgets(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    content = {"train": [["boil", 0], ["melt", 1]], "dev": [["boil", 14]], "max_steps": {"boil": 7}}
    path.write_text(json.dumps(content))
    game = GameSpec(step_budget=99)
    world = ScienceWorld(splits_file=str(path), game=game)
    boil, melt = world.tasks("train")
    assert (world._budget_of(boil), world._budget_of(melt)) == (7, 99)
    narrowed = ScienceWorld(splits_file=str(path), names=["melt"], game=game)
    assert [task.task_id for task in narrowed.tasks("train")] == ["melt-1"]
    assert narrowed.data_hash() != world.data_hash()


def test_the_agent_is_told_how_it_can_travel() -> None:
    assert "teleport to ROOM" in ScienceWorld().instructions()
    told = ScienceWorld(simplifications="openDoors").instructions()
    assert "go to ROOM" in told
    assert "teleport" not in told


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'eazy'; choose from easy"):
        ScienceWorld(simplifications="eazy")
    with pytest.raises(DataError, match="no file"):
        ScienceWorld(splits_file=str(tmp_path / "none.json"))


def test_menus_are_numbered_by_their_words() -> None:
    text = "Ambiguous request: choose:\n0:\topen door to b \n1:\topen door to a\n"
    shown, numbers = sort_menu(text)
    assert shown.splitlines()[1:] == ["0: open door to a", "1: open door to b"]
    assert numbers == ["1", "0"]


def test_lists_are_sorted() -> None:
    doors = "You also see: A door to the b (that is open), A door to the a (that is open)."
    assert sort_lists(doors).index("to the a") < sort_lists(doors).index("to the b")
    assert sort_lists("In it:\n\ty\n\tx\nEnd\n\tb\n\ta") == "In it:\n\tx\n\ty\nEnd\n\ta\n\tb"


@pytest.mark.integration
def test_it_keeps_the_contract(world: ScienceWorld) -> None:
    check_tasks(world, "dev")
    task = world.tasks("train")[0]
    recorded = check_walk(world, task, draw_admissible, 0)
    check_replay(world, task, recorded)
    check_branches(world, task, draw_admissible, 0)
    check_malformed(world, task, recorded)
    check_step_limit(world, task)


@pytest.mark.integration
def test_the_splits_are_the_package_s_own(world: ScienceWorld) -> None:
    world.reset(world.tasks("train")[0])
    simulator = world.pool._slots[0].simulator
    java = simulator._java  # type: ignore[attr-defined]
    assert {name: java.getTaskMaxVariations(name) for name in NUM_VARIATIONS} == NUM_VARIATIONS
    for name in ("lifespan-longest-lived", "boil"):
        world.reset(next(task for task in world.tasks("train") if task.data["task"] == name))
        java = world.pool._slots[0].simulator._java  # type: ignore[attr-defined]
        java.load(name, 0, "easy", False)
        world.pool._slots[0].simulator._loaded = None  # type: ignore[attr-defined]
        world.pool._slots[0].place = None
        for split, numbers in (
            ("train", java.getVariationsTrain()),
            ("dev", java.getVariationsDev()),
            ("test", java.getVariationsTest()),
        ):
            ours = [t.data["variation"] for t in world.tasks(split) if t.data["task"] == name]
            assert set(numbers) - set(ours) <= {61}  # the example


@pytest.mark.integration
def test_examples_are_solved(world: ScienceWorld) -> None:
    example = world.examples()[-1]
    assert example.success
    assert example.num_invalid == 0
    assert example.task_id == "lifespan-longest-lived-61"


@pytest.mark.integration
def test_a_menu_is_answered_with_a_number(world: ScienceWorld) -> None:
    branch = world.fork()
    branch.game = GameSpec()
    branch.max_steps = 9
    branch.reset(branch.tasks("train")[0])
    menu = branch.step("open door")
    assert menu.observation.admissible is not None
    assert menu.observation.admissible[:2] == ("0", "1")
    sibling = branch.fork()
    assert not branch.step("look around").valid
    assert branch.step("1").observation == sibling.step("1").observation


@pytest.mark.integration
def test_a_wrong_focus_ends_the_game_with_nothing(world: ScienceWorld) -> None:
    branch = world.fork()
    branch.game = GameSpec()
    branch.reset(branch.tasks("train")[0])
    step = branch.step("focus on agent")
    assert step.terminated
    assert step.reward == 0

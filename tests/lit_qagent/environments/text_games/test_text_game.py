import pytest

from lit_qagent.core.errors import ConfigError, EnvironmentFailure
from lit_qagent.environments.conformance import check_environment
from lit_qagent.environments.text_games.text_game import GameSpec, spread_over_verbs
from tests.lit_qagent.environments.text_games.fake_game import FakeGame


def start(world: FakeGame, index: int = 2) -> FakeGame:
    world.reset(world.tasks("train")[index])
    return world


@pytest.mark.parametrize("num_simulators", [1, 3])
@pytest.mark.parametrize("step_budget", [None, 4])
def test_it_keeps_the_contract(num_simulators: int, step_budget: int | None) -> None:
    game = GameSpec(num_simulators=num_simulators, step_budget=step_budget)
    check_environment(FakeGame(game=game), "train", num_tasks=3)


def test_hundreds_of_branches_need_no_further_simulator() -> None:
    world = start(FakeGame(game=GameSpec(num_simulators=2)))
    branches = [world.fork() for _ in range(300)]
    assert world.pool.num_open == 1
    for branch in branches:
        assert branch.step("go east").observation.text == "You go to 1. Tick 1."
    assert world.pool.num_open == 2


def test_the_budget_ends_the_game_and_pays_the_score() -> None:
    world = start(FakeGame(game=GameSpec(step_budget=3)))
    step = [world.step(command) for command in ("go east", "go east", "go west")][-1]
    assert step.terminated
    assert step.reward == step.metrics["score"] == 0.25
    assert step.metrics["best_score"] == 0.5


def test_the_best_score_can_be_the_reward() -> None:
    world = start(FakeGame(game=GameSpec(step_budget=3, reward="best")))
    rewards = [world.step(command).reward for command in ("go east", "go east", "go west")]
    assert rewards == [0, 0, 0.5]


def test_invalid_commands_use_up_steps_but_not_the_budget() -> None:
    world = start(FakeGame(game=GameSpec(step_budget=3), max_steps=4))
    step = [world.step(command) for command in ("sing", "sing", "go east", "go east")][-1]
    assert step.truncated
    assert step.reward == 0
    assert step.metrics["score"] == 0.5


def test_free_commands_work_and_refused_ones_change_nothing() -> None:
    world = start(FakeGame())
    shouted = world.step("Thought: Is anyone here?\nAction:  SHOUT ")
    assert shouted.valid
    assert shouted.observation.text == "Echo. Tick 1."
    sung = world.step("sing")
    assert not sung.valid
    assert sung.observation.text == "Invalid action: sing\nWhat?"
    assert world.step("go east").observation.text == "You go to 1. Tick 2."


def test_what_no_game_should_get_is_refused_at_once() -> None:
    world = start(FakeGame())
    for command in ("go east. go east", "go\x00east", "x" * 500, "go \u00f6st"):
        assert not world.step(command).valid
    assert world.host.log == ["start"]


def test_hidden_commands_are_not_listed_but_work() -> None:
    world = start(FakeGame(game=GameSpec(hide=("jump", "go"))), index=0)
    assert world.observation.admissible == ("go east", "go west", "jump")  # nothing else is left
    assert world.step("go east").observation.admissible == ("take coin",)
    assert world.step("jump").terminated


def test_a_cut_list_is_counted() -> None:
    world = start(FakeGame(game=GameSpec(max_listed=2)), index=0)
    assert world.observation.admissible == ("go east", "jump")
    world.step("go east")
    step = world.step("take coin")
    assert step.metrics["unlisted"] == 1 + 2
    assert step.reward == 1


def test_a_cut_list_has_all_verbs_as_long_as_they_fit() -> None:
    commands = ["eat apple", "eat pear", "eat plum", "look", "wait"]
    assert spread_over_verbs(commands, 3) == ["eat apple", "look", "wait"]
    assert spread_over_verbs(commands, 9) == commands


def test_examples_are_played_once_and_are_in_no_split() -> None:
    world = FakeGame(game=GameSpec(step_budget=2), max_steps=3)
    (example,) = world.examples()
    assert example.success
    assert len(example.steps) == 8
    assert example.task_id not in {task.task_id for task in world.tasks("train")}
    log = list(world.host.log)
    assert world.fork().examples() == (example,)
    assert world.host.log == log


def test_a_failure_is_reported_and_the_next_episode_works() -> None:
    world = start(FakeGame())
    world.host.breaks_at = "jump"
    with pytest.raises(EnvironmentFailure, match="broke"):
        world.step("jump")
    world.host.breaks_at = ""
    start(world)
    assert world.step("jump").terminated


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ConfigError, match=r"game.step_budget must be >= 1, got 0"):
        GameSpec(step_budget=0)
    with pytest.raises(ConfigError, match=r"game.max_listed must be >= 1, got -1"):
        GameSpec(max_listed=-1)

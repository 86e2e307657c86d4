import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError

import pytest

from lit_qagent.core.errors import ConfigError, EnvironmentFailure, MissingPackage
from lit_qagent.environments.conformance import check_environment
from lit_qagent.environments.text_games import packages
from lit_qagent.environments.text_games.text_game import GameSpec
from lit_qagent.environments.text_games.textworld_express import TextWorldExpress
from tests.lit_qagent.environments.text_games.needs import need_java

need_java("textworld-express")

TWC = {"numLocations": 1, "numItemsToPutAway": 3, "includeDoors": 0, "limitInventorySize": 0}
GAMES = (
    "twc",
    "cookingworld",
    "coin",
    "mapreader",
    "arithmetic",
    "sorting",
    "simonsays",
    "peckingorder",
)


@pytest.fixture(scope="module")
def twc() -> Iterator[TextWorldExpress]:
    world = TextWorldExpress(
        parameters=TWC, max_steps=12, game=GameSpec(hide=("look", "inventory"))
    )
    yield world
    world.close()


def test_tasks_are_a_thousand_seeds_a_split_and_need_no_java(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    world = TextWorldExpress()
    ids = [task.task_id for split in ("train", "dev", "test") for task in world.tasks(split)]
    assert len(set(ids)) == 3000
    assert (ids[0], ids[1000], ids[-1]) == ("twc-0", "twc-10000", "twc-20999")
    with pytest.raises(ConfigError, match="choose one of train, dev, test"):
        world.tasks("valid")


def test_an_unknown_game_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'cokingworld'; did you mean 'cookingworld'"):
        TextWorldExpress(name_of_game="cokingworld")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packages, "version", absent)
    with pytest.raises(MissingPackage, match=r"textworld-express.*lit-qagent\[worlds\]"):
        TextWorldExpress()


def test_the_hash_depends_on_the_game_and_its_parameters() -> None:
    worlds = [
        TextWorldExpress(),
        TextWorldExpress(parameters=TWC),
        TextWorldExpress(name_of_game="coin"),
    ]
    assert len({world.data_hash() for world in worlds}) == 3
    assert TextWorldExpress(parameters=TWC).data_hash() == worlds[1].data_hash()


@pytest.mark.integration
def test_missing_java_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    world = TextWorldExpress()
    with pytest.raises(MissingPackage, match="apt install default-jre-headless"):
        world.reset(world.tasks("train")[0])


@pytest.mark.integration
def test_an_unknown_parameter_is_refused_with_those_there_are() -> None:
    world = TextWorldExpress(parameters={"numRooms": 1})
    with pytest.raises(EnvironmentFailure, match=r"numRooms=1.*numLocations"):
        world.reset(world.tasks("train")[0])
    world.close()


@pytest.mark.integration
@pytest.mark.parametrize("game", GAMES)
def test_every_game_keeps_the_contract(game: str) -> None:
    spec = GameSpec(step_budget=5, num_simulators=4)
    world = TextWorldExpress(name_of_game=game, max_steps=5, game=spec)
    check_environment(world, "train", num_tasks=1)
    assert world.pool.counts.other_texts == 0
    world.close()


@pytest.mark.integration
def test_the_seeds_are_the_package_s_own(twc: TextWorldExpress) -> None:
    twc.reset(twc.tasks("train")[0])
    java = twc.pool._slots[0].simulator._java  # type: ignore[attr-defined]
    for split, seeds in (
        ("train", java.getSeedsTrain()),
        ("dev", java.getSeedsDev()),
        ("test", java.getSeedsTest()),
    ):
        assert [task.data["seed"] for task in twc.tasks(split)] == list(seeds)


@pytest.mark.integration
def test_distinct_leaves_out_games_that_begin_alike() -> None:
    few = {**TWC, "numItemsToPutAway": 1}
    world, all_games = (TextWorldExpress(parameters=few, distinct=each) for each in (True, False))
    starts = [world.fork().reset(task).text for task in world.tasks("test")]
    ids = [task.task_id for task in all_games.tasks("test")]
    assert len(set(starts)) == len(starts) < len(ids)
    assert [task.task_id for task in world.tasks("test")][:2] == ids[:2]
    assert world.settings()["distinct"] is True
    assert "distinct" not in all_games.settings()
    world.close()


@pytest.mark.integration
def test_solutions_earn_everything_and_partial_ones_their_part(twc: TextWorldExpress) -> None:
    task = twc.tasks("dev")[3]
    solved = twc.solve(task)
    assert solved.success
    assert solved.steps[-1].metrics["score"] == 1
    branch = twc.fork()
    branch.game = GameSpec(step_budget=3)
    branch.reset(task)
    useful = [each.action for each in solved.steps if "look around" not in each.action]
    last = [branch.step(action) for action in useful[:3]][-1]
    assert last.terminated
    assert 0 < last.reward < 1


@pytest.mark.integration
def test_a_free_command_is_matched_without_regard_to_case(twc: TextWorldExpress) -> None:
    branch = twc.fork()
    branch.reset(branch.tasks("train")[1])
    assert "look around" not in (branch.observation.admissible or ())
    assert branch.step("Thought: Where am I?\nAction:  Look   AROUND").valid
    assert not branch.step("dance").valid


@pytest.mark.integration
def test_another_thread_may_go_on_with_an_episode(twc: TextWorldExpress) -> None:
    branch = twc.fork()
    branch.reset(branch.tasks("train")[4])
    alone = branch.fork().step("look around")
    with ThreadPoolExecutor(max_workers=4) as threads:
        steps = list(threads.map(lambda _: branch.fork().step("look around"), range(20)))
    assert steps == [alone] * 20


@pytest.mark.integration
def test_a_pickled_world_plays_on_in_a_process_of_its_own(twc: TextWorldExpress) -> None:
    branch = twc.fork()
    branch.reset(branch.tasks("train")[5])
    other = pickle.loads(pickle.dumps(branch))
    assert other.pool.num_open == 0
    assert other.step("look around") == branch.step("look around")
    other.close()


@pytest.mark.integration
def test_a_killed_java_is_reported_and_replaced(twc: TextWorldExpress) -> None:
    task = twc.tasks("train")[2]
    branch = twc.fork()
    first = branch.reset(task)
    process = twc.pool.host._process  # type: ignore[attr-defined]
    process._process.kill()
    process._process.wait()
    with pytest.raises(EnvironmentFailure, match="next episode starts a new process"):
        branch.step(first.admissible[0] if first.admissible else "")
    assert branch.reset(task) == first
    assert twc.pool.host._process.pid != process.pid  # type: ignore[attr-defined]

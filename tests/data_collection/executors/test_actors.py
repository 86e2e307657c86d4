"""The parts of the actors: health of engines, errors as values, options, and the command line."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_collection.executors import RayExecutor
from data_collection.executors import ray as ray_module
from data_collection.executors.engine_actor import FAILURES_UNTIL_REBUILT, EngineActor, Started
from data_collection.executors.engine_client import EngineClient, EnginePool, TreePolicy
from data_collection.executors.lost import ActorLost
from data_collection.executors.recipe import build_policy, build_setup
from data_collection.executors.search_actor import SearchActor
from data_collection.world import TIMED_OUT, act
from lit_qagent.core.errors import (
    ConfigError,
    ContextOverflow,
    DataError,
    MissingPackage,
    PolicyFailure,
    QAgentError,
)
from lit_qagent.core.records import Message, Proposal, RequestCost, Sampling
from lit_qagent.environments.base import Outcome
from tests.data_collection.executors.cluster_parts import (
    FakeCluster,
    parse_collect,
    recipe,
    run,
    setup_of,
)
from tests.data_collection.parts import LetterWorld, SeededPolicy

CHAT = [Message(role="user", content="go")]
REPOSITORY = Path(__file__).parents[3]


class Engine:
    """Answers from a list: proposals, errors to return, deaths."""

    def __init__(self, *answers: str | QAgentError | ActorLost) -> None:
        self.answers = list(answers)
        self.num_asked = 0

    async def propose(self, *request: Any) -> list[Proposal] | QAgentError:  # noqa: ANN401
        self.num_asked += 1
        answer = self.answers.pop(0) if self.answers else "fine"
        if isinstance(answer, ActorLost):
            raise answer
        cost = RequestCost(requests=1, generated_tokens=3)
        return (
            [Proposal(text=answer, num_tokens=3, cost=cost)] if isinstance(answer, str) else answer
        )


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def ask(pool: EnginePool, home: int = 0) -> str:
    policy = TreePolicy(pool, home)
    return asyncio.run(policy.propose(CHAT, 1, Sampling()))[0].text


def test_a_tree_asks_its_home_and_another_while_that_is_lost() -> None:
    clock, first, second = Clock(), Engine(ActorLost("killed")), Engine()
    clients = [EngineClient(engine, clock) for engine in (first, second)]
    pool = EnginePool(clients)
    assert ask(pool) == "fine"
    assert (first.num_asked, second.num_asked) == (1, 1)
    ask(pool)  # it rests
    assert (first.num_asked, second.num_asked) == (1, 2)
    clock.now += 60
    ask(pool)
    assert (first.num_asked, second.num_asked) == (2, 2)
    assert [client.losses for client in clients] == [1, 0]
    assert [client.usage.generated_tokens for client in clients] == [3, 6]
    ask(pool, home=1)
    assert second.num_asked == 3


def test_all_engines_lost_is_a_failure_of_the_policy() -> None:
    pool = EnginePool([EngineClient(Engine(ActorLost("killed"))) for _ in range(2)])
    with pytest.raises(PolicyFailure, match=r"no engine actor is alive \(killed\)"):
        ask(pool)
    assert ask(pool) == "fine"  # a rest does not keep the only ones from being asked


def test_errors_of_the_policy_arrive_unchanged_and_only_failures_ask_for_a_rest() -> None:
    for error, rests in (
        (PolicyFailure("no answer"), True),
        (ContextOverflow("too long"), False),
        (DataError("no recording"), False),
    ):
        engine, other = Engine(error), Engine()
        client = EngineClient(engine)
        pool = EnginePool([client, EngineClient(other)])
        with pytest.raises(type(error)) as caught:
            ask(pool)
        assert caught.value is error
        assert (client.rests, other.num_asked) == (rests, 0)


def test_the_idlest_engine_stands_in() -> None:
    pool = EnginePool([EngineClient(Engine()) for _ in range(3)])
    pool.gates[1].in_flight = 5
    assert pool.order(0) == [0, 2, 1]
    assert pool.order(1) == [1, 0, 2]


class FailingPolicy(SeededPolicy):
    """Never answers; counts how often it was built and closed."""

    built = 0
    closed = 0

    def __init__(self, *, actions: Sequence[str] = ("a",)) -> None:
        super().__init__(actions=actions)
        FailingPolicy.built += 1

    async def propose(self, *request: Any, **options: Any) -> list[Proposal]:  # noqa: ANN401
        raise PolicyFailure("the engine died")

    async def close(self) -> None:
        FailingPolicy.closed += 1


def test_a_policy_that_always_fails_is_built_again() -> None:
    path = f"{__name__}.FailingPolicy"
    actor = EngineActor({"policy": {"class_path": path}}, ".")
    started = asyncio.run(actor.start())
    assert isinstance(started, Started)
    assert started.settings == {"name": "seeded", "actions": ["a"]}
    for _ in range(FAILURES_UNTIL_REBUILT + 1):
        answer = asyncio.run(actor.propose(CHAT, 1, Sampling(), None, 0))
        assert isinstance(answer, PolicyFailure)
    assert (FailingPolicy.built, FailingPolicy.closed) == (2, 1)


def test_a_search_actor_says_when_it_does_not_stand_where_the_driver_does() -> None:
    setup = setup_of(recipe())
    [task, *_] = setup.environment.tasks("train")

    async def talk() -> None:
        actor = SearchActor(recipe(), ".")
        assert await actor.open(task, 0, ()) is None
        engine = EngineActor({"policy": recipe()["policy"]}, ".")
        started = await actor.start([engine])
        assert isinstance(started, Started)
        assert started.settings == setup.environment.settings()
        assert await actor.iterate(task.task_id, 0) is None
        await actor.open(task, 0, ())
        first = await actor.iterate(task.task_id, 0)
        assert first is not None
        assert not isinstance(first, QAgentError)
        assert await actor.iterate(task.task_id, 0) is None
        await actor.open(task, 0, [first])
        assert await actor.iterate(task.task_id, 1) is not None
        await actor.close_search(task.task_id)
        assert await actor.iterate(task.task_id, 2) is None
        load = await actor.load(7)
        assert (load.in_flight, load.queued) == (0, 0)
        assert load.answers > 0

    asyncio.run(talk())


def test_a_recipe_builds_what_the_command_builds(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(recipe(store="trees", step_timeout_s=None)))
    values = parse_collect(["--config", str(config)])
    setup = build_setup(recipe(step_timeout_s=None), build_policy(recipe()))
    for name in ("search", "prompt", "sampling", "seed", "scorer", "step_timeout_s"):
        assert getattr(values, name) == getattr(setup, name)
    assert values.environment.settings() == setup.environment.settings()
    assert values.policy.settings() == setup.policy.settings()


def test_what_cannot_be_built_there_is_told_as_it_is_here() -> None:
    missing = "lit_qagent.environments.hotpotqa.HotPotQA"
    values = recipe() | {
        "environment": {"class_path": missing, "init_args": {"data": {"train": "/no/such.json"}}}
    }
    answer = asyncio.run(SearchActor(values, ".").start([Engine()]))
    assert isinstance(answer, DataError)
    assert "/no/such.json" in str(answer)


@pytest.mark.parametrize(
    ("given", "engines"),
    [
        ("local", None),
        ("ray", None),
        ("RayExecutor", 1),
        ({"class_path": "RayExecutor", "init_args": {"engines": 3}}, 3),
        ({"class_path": "data_collection.executors.RayExecutor", "init_args": {"engines": 3}}, 3),
    ],
)
def test_executors_are_named_shortly_or_in_full(
    tmp_path: Path, given: str | dict[str, Any], engines: int | None
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(recipe(store="trees", executor=given)))
    executor = parse_collect(["--config", str(config)]).executor
    assert (executor if engines is None else executor.engines) == (engines or given)
    plain = tmp_path / "plain.yaml"
    plain.write_text(yaml.safe_dump(recipe(store="trees")))
    if isinstance(given, str):
        executor = parse_collect(["--config", str(plain), "--executor", given]).executor
        assert (executor if engines is None else executor.engines) == (engines or given)


@pytest.mark.parametrize("name", ["engines", "searchers", "gpus_per_engine", "max_losses"])
def test_options_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"RayExecutor.{name} must be >= \d, got -2"):
        RayExecutor(**{name: -2})  # type: ignore[arg-type]


def test_without_ray_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_module, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=r"pip install 'lit-qagent\[ray\]'"):
        run(setup_of(recipe()), tmp_path / "store", RayExecutor())


@pytest.mark.integration
def test_nothing_but_a_run_on_ray_imports_ray() -> None:
    code = (
        "import sys, data_collection.cli, data_collection.collect\n"
        "from data_collection.executors import RayExecutor\n"
        "RayExecutor(engines=2)\nsys.exit('ray' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_a_step_that_hangs_is_cut_beside_the_main_thread_too() -> None:
    class Hanging(LetterWorld):
        def _act(self, command: str) -> Outcome:
            if command == "h":
                time.sleep(2)
            return super()._act(command)

    def step(action: str) -> None:
        world = Hanging(rewards={})
        world.reset(world.tasks("train")[0])
        branch = asyncio.run(act(world, action, 0.2))
        found.append((branch.step.observation.text, branch.step.truncated))

    found: list[tuple[str, bool]] = []
    for action in ("a", "h"):
        thread = threading.Thread(target=step, args=(action,))
        thread.start()
        thread.join()
    assert found == [("So far: a", False), (TIMED_OUT, True)]


def test_the_store_says_nothing_of_the_executor(tmp_path: Path) -> None:
    run(setup_of(recipe()), tmp_path / "store", FakeCluster())
    manifest = (tmp_path / "store" / "manifest.json").read_text()
    assert "executor" not in manifest
    assert "recipe" not in manifest

"""The executor for clusters without a cluster: deaths, hand-outs and failures, to the byte."""

import asyncio
from pathlib import Path

import pytest

from data_collection.budget import Budget, Limits, RunLimits
from data_collection.executors import ClusterFailure
from data_collection.store import TreeStore
from lit_qagent.core.errors import ConfigError
from tests.data_collection.executors.cluster_parts import (
    FakeCluster,
    files,
    recipe,
    run,
    setup_of,
)


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """What the local executor writes."""
    run(setup_of(recipe()), tmp_path / "local")
    return files(tmp_path / "local")


@pytest.mark.parametrize("concurrency", [1, 4, "auto"])
def test_the_store_is_that_of_the_local_executor(
    tmp_path: Path, whole: dict[str, bytes], concurrency: int | str
) -> None:
    cluster = FakeCluster()
    summary = run(setup_of(recipe()), tmp_path / "store", cluster, concurrency=concurrency)
    assert files(tmp_path / "store") == whole
    assert (summary.finished, summary.handed_out_again) == (6, 0)
    assert "handed out again" not in summary.table()
    assert min(searcher.num_iterations for searcher in cluster.searchers) > 0 or concurrency == 1
    assert all(engine.num_asked > 0 for engine in cluster.engines)


def test_a_known_batch_is_filled(tmp_path: Path, whole: dict[str, bytes]) -> None:
    run(setup_of(recipe()), tmp_path / "store", FakeCluster(max_num_seqs=12), concurrency="auto")
    assert files(tmp_path / "store") == whole


def test_a_search_actor_that_dies_costs_the_iterations_in_flight(
    tmp_path: Path, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = FakeCluster(searcher_options=({"deaths": (7, 20)}, {"deaths": (15,)}))
    summary = run(setup_of(recipe()), tmp_path / "store", cluster)
    assert files(tmp_path / "store") == whole
    assert summary.failures == 0
    assert summary.handed_out_again >= 3
    assert "handed out again" in summary.table()
    assert "search actor 1 was lost; its trees are handed out again (killed)" in (
        capsys.readouterr().err
    )


def test_an_engine_actor_that_dies_is_stood_in_for(
    tmp_path: Path, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = FakeCluster(engine_deaths=((5, 9), (12,)))
    summary = run(setup_of(recipe()), tmp_path / "store", cluster)
    assert files(tmp_path / "store") == whole
    assert summary.failures == 0
    assert "an engine actor was lost; " in capsys.readouterr().err


def test_the_only_engine_actor_is_waited_for(tmp_path: Path, whole: dict[str, bytes]) -> None:
    run(setup_of(recipe()), tmp_path / "store", FakeCluster(engine_deaths=((5,),)))
    assert files(tmp_path / "store") == whole


def test_a_task_that_kills_its_actors_fails_alone(tmp_path: Path, whole: dict[str, bytes]) -> None:
    cluster = FakeCluster(searcher_options=({"fatal": "train/2"}, {"fatal": "train/2"}))
    summary = run(setup_of(recipe()), tmp_path / "store", cluster)
    assert (summary.finished, summary.failures) == (6, 1)
    assert sum(searcher.num_deaths for searcher in cluster.searchers) == 4
    [reason] = summary.failure_reasons
    assert reason == (
        "SearcherLost: 4 search actors died while they did iteration 2 of task 'train/2', "
        "the last: killed"
    )
    stored = files(tmp_path / "store")
    different = [name for name in whole if stored[name] != whole[name]]
    assert [name.partition("-")[0] for name in different] == ["train_2"]
    again = run(setup_of(recipe()), tmp_path / "store", FakeCluster(), retry_failed=True)
    assert again.failures == 0
    trees = {tree.header.task_id: tree.tree for tree in TreeStore(tmp_path / "store").trees()}
    local = {tree.header.task_id: tree.tree for tree in TreeStore(tmp_path / "local").trees()}
    assert trees == local


def test_a_run_without_search_actors_stops_and_can_be_gone_on_with(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    options = {"deaths": (9,), "restarts": 0}
    cluster = FakeCluster(searcher_options=(options, options))
    with pytest.raises(ClusterFailure, match="all 2 search actors have died"):
        run(setup_of(recipe()), tmp_path / "store", cluster)
    assert files(tmp_path / "store") != whole
    assert all(tree.end is None for tree in TreeStore(tmp_path / "store").trees())
    run(setup_of(recipe()), tmp_path / "store")
    assert files(tmp_path / "store") == whole


def test_one_search_actor_that_stays_away_is_done_without(
    tmp_path: Path, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = FakeCluster(searcher_options=({"deaths": (9,), "restarts": 0}, {}))
    run(setup_of(recipe()), tmp_path / "store", cluster)
    assert files(tmp_path / "store") == whole
    assert "search actor 0 is not started again" in capsys.readouterr().err


def test_either_executor_goes_on_where_the_other_stopped(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    limits = RunLimits(budget=Budget(run=Limits(iterations=20)))
    for executor, other in ((None, FakeCluster()), (FakeCluster(), None)):
        folder = tmp_path / f"from-{'local' if executor is None else 'cluster'}"
        first = run(setup_of(recipe()), folder, executor, limits=limits)
        assert first.stopped_by is not None
        assert files(folder) != whole
        run(setup_of(recipe()), folder, other)
        assert files(folder) == whole


def test_a_search_actor_that_comes_back_with_another_world_is_left_out(
    tmp_path: Path, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    letters = "tests.data_collection.parts.LetterWorld"
    other = recipe() | {"environment": {"class_path": letters, "init_args": {"rewards": {}}}}
    cluster = FakeCluster(searcher_options=({"deaths": (3,), "later": other}, {}))
    run(setup_of(recipe()), tmp_path / "store", cluster)
    assert files(tmp_path / "store") == whole
    error = capsys.readouterr().err
    assert "search actor 0 is left out: the world on" in error
    assert "data_hash: '[]' there" in error


def test_a_setup_without_its_recipe_is_refused(tmp_path: Path) -> None:
    setup = setup_of(recipe())
    plain = type(setup)(**{**vars(setup), "recipe": None})
    with pytest.raises(ConfigError, match=r"give SearchSetup\.recipe"):
        run(plain, tmp_path / "store", FakeCluster())


def test_a_limit_on_samples_is_shared_among_the_search_actors(tmp_path: Path) -> None:
    setup = setup_of(recipe())
    cluster = FakeCluster()

    async def talk() -> list[int | None]:
        with cluster.running(setup, 8) as searches:
            [task, *_] = setup.environment.tasks("train")
            await searches.open(task)
            await searches.close()
            actors = [searcher.actor for searcher in cluster.searchers]
            return [gate.limit for actor in actors for gate in actor._pool.gates]

    assert asyncio.run(talk()) == [2, 2, 2, 2]


def test_a_replay_in_the_actors_gives_the_store_of_the_run_that_was_recorded(
    tmp_path: Path,
) -> None:
    recorded = "lit_qagent.policies.recorded.RecordedPolicy"
    path = str(tmp_path / "answers.jsonl")
    record = {"path": path, "mode": "record", "policy": recipe()["policy"]}
    replay = {"path": path}
    for name, options, executor in (("first", record, None), ("again", replay, FakeCluster())):
        policy = {"class_path": recorded, "init_args": options}
        run(setup_of(recipe() | {"policy": policy}), tmp_path / name, executor)
    assert files(tmp_path / "again") == files(tmp_path / "first")

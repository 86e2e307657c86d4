import copy
import os
import pickle
import random
import threading

import pytest

from lit_qagent.core.errors import ConfigError, EnvironmentFailure
from lit_qagent.environments.text_games.pool import Place, SimulatorPool, place_of
from lit_qagent.environments.text_games.simulator import View
from tests.lit_qagent.environments.text_games.fake_game import FakeHost

GAME = place_of({"length": 3})


def make_pool(size: int = 2) -> tuple[SimulatorPool, FakeHost]:
    host = FakeHost()
    return SimulatorPool(host, size=size), host


def test_going_on_where_a_simulator_stands_repeats_nothing() -> None:
    pool, host = make_pool()
    view = pool.start(GAME)
    view = pool.act(GAME, "go east", view)
    pool.act(GAME.after("go east"), "go east", view)
    assert host.log == ["start", "go east", "go east"]
    assert (pool.counts.hits, pool.counts.repeats) == (2, 0)


def test_a_sibling_is_reached_by_repeating_the_commands_of_its_branch() -> None:
    pool, host = make_pool(size=1)
    first = pool.start(GAME)
    here = pool.act(GAME, "go east", first)
    place = GAME.after("go east")
    pool.act(place, "go west", here)
    host.log.clear()
    sibling = pool.act(place, "go east", here)
    assert sibling.text == "You go to 2. Tick 2."
    assert host.log == ["start", "go east", "go east"]


def test_a_simulator_on_the_way_is_led_on_instead_of_starting_anew() -> None:
    pool, host = make_pool(size=1)
    view = pool.start(GAME)
    reference, _ = make_pool()
    there = reference.act(GAME, "go east", reference.start(GAME))
    host.log.clear()
    assert view.score == 0
    pool.act(GAME.after("go east"), "go east", there)
    assert host.log == ["go east", "go east"]


def test_never_more_simulators_than_the_pool_is_large() -> None:
    pool, host = make_pool(size=3)
    for length in range(1, 9):
        pool.start(place_of({"length": length}))
    assert pool.num_open == len(host.opened) == 3


def test_what_was_not_understood_does_not_count_although_it_cost_the_game_a_tick() -> None:
    pool, host = make_pool(size=1)
    view = pool.start(GAME)
    assert not pool.act(GAME, "sing", view).is_understood
    assert pool.act(GAME, "go east", view).text == "You go to 1. Tick 1."
    assert host.log == ["start", "sing", "start", "go east"]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_any_order_of_branches_gives_what_each_branch_gives_alone(size: int) -> None:
    rng = random.Random(size)
    pool, _ = make_pool(size)
    branches = [(place, pool.start(place)) for place in (GAME, GAME, place_of({"length": 2}))]
    for _ in range(200):
        place, view = rng.choice(branches)
        if not view.commands:
            continue
        command = rng.choice(("go east", "go west"))
        after = pool.act(place, command, view)
        branches.append((place.after(command), after))
        assert after == play_alone(place, command)


def play_alone(place: Place, command: str) -> View:
    pool, _ = make_pool(size=1)
    here = Place(place.game)
    view = pool.start(here)
    for each in (*place.commands, command):
        view = pool.act(here, each, view)
        here = here.after(each)
    return view


def test_a_broken_simulator_is_thrown_away_with_all_of_its_process() -> None:
    pool, host = make_pool(size=2)
    view = pool.start(GAME)
    pool.start(place_of({"length": 1}))
    host.breaks_at = "go east"
    with pytest.raises(EnvironmentFailure, match="the fake game broke"):
        pool.act(GAME, "go east", view)
    assert pool.num_open == 0
    host.breaks_at = ""
    assert pool.act(GAME, "go east", pool.start(GAME)).text == "You go to 1. Tick 1."
    assert len(host.opened) == 3


def test_another_score_after_repeating_is_refused() -> None:
    pool, host = make_pool(size=1)
    view = pool.act(GAME, "go east", pool.start(GAME))
    pool.start(GAME)
    host.drift = 0.125
    with pytest.raises(EnvironmentFailure, match="not deterministic"):
        pool.act(GAME.after("go east"), "go east", view)


def test_another_text_with_the_same_score_is_counted() -> None:
    pool, _ = make_pool(size=1)
    view = pool.act(GAME, "go east", pool.start(GAME))
    pool.start(GAME)
    other = View(text="Other words.", commands=view.commands, score=view.score)
    pool.act(GAME.after("go east"), "go east", other)
    assert pool.counts.other_texts == 1


def test_closing_ends_all_and_a_closed_pool_opens_again() -> None:
    pool, host = make_pool()
    pool.start(GAME)
    pool.close()
    assert host.opened[0].is_closed
    assert host.num_closed == 1
    assert pool.num_open == 0
    assert pool.start(GAME).score == 0


def test_a_copy_shares_the_pool_and_a_pickle_has_its_own() -> None:
    pool, _ = make_pool()
    pool.start(GAME)
    assert copy.deepcopy(pool) is pool
    other = pickle.loads(pickle.dumps(pool))
    assert (other.num_open, other.size) == (0, 2)
    assert other.start(GAME).score == 0


def test_a_forked_process_opens_simulators_of_its_own() -> None:
    pool, host = make_pool()
    pool.start(GAME)
    child = os.fork()
    if child == 0:
        pool.start(GAME)
        os._exit(0 if (len(host.opened), pool.num_open) == (2, 1) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(host.opened) == 1


def test_threads_may_share_a_pool() -> None:
    pool, _ = make_pool(size=2)
    wrong: list[View] = []

    def play(length: int) -> None:
        here = place_of({"length": length})
        view = pool.start(here)
        for number in range(1, length + 1):
            view = pool.act(here, "go east", view)
            here = here.after("go east")
            if view.text != f"You go to {number}. Tick {number}.":
                wrong.append(view)

    threads = [threading.Thread(target=play, args=(20 + n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_pool_needs_a_simulator() -> None:
    with pytest.raises(ConfigError, match="num_simulators must be >= 1, got 0"):
        SimulatorPool(FakeHost(), size=0)

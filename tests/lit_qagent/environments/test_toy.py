import itertools

import pytest

from lit_qagent.core.errors import ConfigError
from lit_qagent.environments.splits import SplitSizes
from lit_qagent.environments.toy import ToyWorld

SMALL = SplitSizes(train=4, valid=1, test=2)


def small_world() -> ToyWorld:
    world = ToyWorld(depth=3, num_actions=2, max_steps=4, splits=SMALL)
    world.reset(world.tasks("train")[0])
    return world


def test_reward_is_the_share_of_right_words() -> None:
    world = ToyWorld()
    task = world.tasks("train")[0]
    first, second, third = task.data["target"]
    other = next(word for word in ("red", "blue") if word != first)
    world.reset(task)
    for word in (other, second, third):
        world.step(f"Thought: next.\nAction: pick[{word}]")
    assert world.trajectory.steps[-1].terminated
    assert world.trajectory.reward == pytest.approx(2 / 3)


def test_splits_share_no_task_and_the_example_is_in_none() -> None:
    world = ToyWorld()
    ids = [task.task_id for split in ("train", "valid", "test") for task in world.tasks(split)]
    assert len(ids) == len(set(ids)) == 32 + 8 + 16
    assert world.examples()[0].task_id not in ids


def test_optimal_q_equals_the_best_reward_found_by_trying_everything() -> None:
    world = small_world()

    def best_reward(prefix: tuple[str, ...]) -> float:
        branch = world.fork()
        for action in prefix:
            branch.step(action)
        if branch.is_over:
            return branch.trajectory.reward
        options = (*(branch.observation.admissible or ()), "pick[nothing]")
        return max(best_reward((*prefix, action)) for action in options)

    words = [f"pick[{word}]" for word in ("red", "blue", "circle", "square", "small", "large")]
    prefixes = [
        prefix
        for length in range(4)
        for prefix in itertools.product([*words, "pick[nothing]"], repeat=length)
    ]
    checked = 0
    for prefix in prefixes:
        branch = world.fork()
        for action in prefix:
            if branch.is_over:
                break
            branch.step(action)
        if len(branch.actions) == len(prefix):
            assert world.optimal_q(prefix) == pytest.approx(best_reward(prefix)), prefix
            checked += 1
    assert checked == len(prefixes)


def test_optimal_q_by_hand() -> None:
    world = small_world()
    first = world.task.data["target"][0]
    wrong = "blue" if first == "red" else "red"
    assert world.optimal_q([]) == 1.0
    assert world.optimal_q([f"pick[{first}]"]) == 1.0
    assert world.optimal_q([f"pick[{wrong}]"]) == pytest.approx(2 / 3)
    # Four steps leave room for one invalid action, not for two.
    assert world.optimal_q(["pick[no]"]) == 1.0
    assert world.optimal_q(["pick[no]", "pick[no]"]) == 0.0


def test_the_seed_decides_the_splits() -> None:
    worlds = [ToyWorld(seed=seed) for seed in (0, 0, 1)]
    hashes = [world.data_hash() for world in worlds]
    assert hashes[0] == hashes[1] != hashes[2]


def test_tasks_of_a_seed_are_the_same_in_every_process() -> None:
    world = ToyWorld(splits=SplitSizes(train=2, valid=0, test=0))
    assert [task.task_id for task in world.tasks("train")] == [
        "toy-blue-square-large",
        "toy-green-cross-huge",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 0}, "depth must be 1 to 5, got 0"),
        ({"num_actions": 9}, "num_actions must be 2 to 8, got 9"),
        ({"depth": 1}, "56 toy tasks asked for, but 4 words in 1 steps make 3; lower splits"),
        ({"max_steps": 0}, "max_steps must be >= 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ToyWorld(**settings)  # type: ignore[arg-type]

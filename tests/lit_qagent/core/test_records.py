import pytest

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.records import (
    Constraint,
    History,
    Message,
    Observation,
    Proposal,
    RequestCost,
    Sampling,
    Step,
    Trajectory,
    Usage,
)
from lit_qagent.core.seeds import derive_seed


def _message(text: str) -> Message:
    return Message(role="user", content=text)


def test_a_trajectory_has_the_reward_of_its_last_step_and_counts_invalid_actions() -> None:
    steps = (
        Step(action="a", observation=Observation(text="no"), valid=False),
        Step(action="b", observation=Observation(text="end"), reward=0.75, terminated=True),
    )
    trajectory = Trajectory(task_id="t", first_observation=Observation(text="go"), steps=steps)
    assert trajectory.reward == 0.75
    assert not trajectory.success
    assert trajectory.num_invalid == 1
    assert Trajectory(task_id="t", first_observation=Observation(text="go"), steps=()).reward == 0


def test_half_letters_of_an_answer_become_whole_ones_and_nothing_else_changes() -> None:
    # Half a letter is no text that a file or a request can hold; whole pairs are one letter.
    answer = Proposal(text="Nice \ud83d\U0001f600\t\x1b\n\udfff", num_tokens=1)
    assert answer.text == "Nice \ufffd\U0001f600\t\x1b\n\ufffd"


def test_a_history_drops_its_oldest_step_whole_and_never_its_head() -> None:
    history = History(
        head=(_message("task"),), turns=tuple(_message(text) for text in ("a1", "o1", "a2", "o2"))
    )
    shorter = history.without_oldest_step()
    assert [message.content for message in shorter.messages] == ["task", "a2", "o2"]
    assert (history.num_steps, shorter.num_steps) == (2, 1)


def test_a_history_with_half_a_step_is_refused() -> None:
    with pytest.raises(ConfigError, match="an action and an observation per step, got 1"):
        History(head=(), turns=(_message("a1"),))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature must be >= 0, got -0.1"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
        ({"max_tokens": 0}, "max_tokens must be >= 1, got 0"),
    ],
)
def test_sampling_out_of_range_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sampling(**settings)  # type: ignore[arg-type]  # the values are what is tested


def test_a_constraint_is_choices_or_an_expression() -> None:
    with pytest.raises(ConfigError, match="exactly one"):
        Constraint()
    with pytest.raises(ConfigError, match="exactly one"):
        Constraint(choices=("a",), regex="a")


def test_usage_adds_up() -> None:
    usage = Usage()
    usage.add(RequestCost(requests=1, prompt_tokens=10, generated_tokens=3))
    usage.add(Usage(requests=1, prompt_tokens=5, generated_tokens=2))
    assert usage.to_dict() == {"requests": 2, "prompt_tokens": 15, "generated_tokens": 5}


def test_a_seed_depends_on_every_part_and_on_nothing_else() -> None:
    assert derive_seed(0, "task", 1) == derive_seed(0, "task", 1)
    assert len({derive_seed(run, task, 0) for run in range(20) for task in "abcde"}) == 100
    assert derive_seed("a", "bc") != derive_seed("ab", "c")
    assert all(0 <= derive_seed(number) < 2**31 for number in range(100))

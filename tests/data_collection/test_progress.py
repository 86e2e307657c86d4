import io

from data_collection.iterations import Cost, Iteration
from data_collection.progress import ProgressDisplay, ProgressMeter
from tests.data_collection.parts import make_step


def _meter() -> ProgressMeter:
    return ProgressMeter(num_trees=10, max_iterations=5)


def _iteration() -> Iteration:
    return Iteration(
        number=0,
        selected=0,
        children=(make_step("a"), make_step("b")),
        evaluated=1,
        rollout=(),
        reward=0.0,
        cost=Cost(generated_tokens=50),
    )


def test_the_line_holds_all_that_was_counted() -> None:
    meter = _meter()
    meter.started -= 10.0
    meter.count(_iteration())
    meter.done, meter.successes, meter.failures = 4, 1, 2
    line = meter.line()
    assert line.startswith("trees 4/10 | nodes 2 | success 25% | 5 tokens/s | failed 2 | ETA ")


def test_the_time_left_counts_trees_in_flight_and_not_those_of_earlier_runs() -> None:
    meter = _meter()
    meter.started -= 60.0
    meter.done = meter.resumed = 6
    for _ in range(5):
        meter.count(_iteration())
    # One tree's worth of iterations in 60 s, three trees to go.
    assert meter.line().endswith("ETA 0:03:00")


def test_nothing_is_promised_before_anything_is_done() -> None:
    assert _meter().line().endswith("success - | 0 tokens/s | failed 0 | ETA -")


def test_without_a_terminal_lines_come_now_and_then() -> None:
    stream = io.StringIO()
    display = ProgressDisplay(_meter(), stream)
    with display.live():
        for _ in range(100):
            display.refresh()
    assert stream.getvalue().count("\n") == 1
    display.refresh(last=True)
    assert stream.getvalue().count("\n") == 2


def test_on_a_terminal_one_line_changes() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    display = ProgressDisplay(_meter(), stream)
    with display.live():
        display.refresh()
    assert "trees 0/10" in stream.getvalue()

"""Limits per minute on a clock of the test's own: nothing here takes time."""

import asyncio
import random

import pytest

from lit_qagent.core.errors import ConfigError
from lit_qagent.policies import openai_limits
from lit_qagent.policies.openai_limits import RateLimit


class Clock:
    """Time goes on where something sleeps."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(openai_limits, "monotonic", clock)
    monkeypatch.setattr(asyncio, "sleep", clock.sleep)
    return clock


def admit_all(limit: RateLimit, sizes: list[int], clock: Clock) -> list[float]:
    async def run() -> list[float]:
        times = []
        for size in sizes:
            await limit.admit(size)
            times.append(clock.now)
        return times

    return asyncio.run(run())


def most_in_a_minute(times: list[float], sizes: list[int]) -> int:
    """The largest sum of sizes in any 60 seconds, by looking at every start."""
    return max(
        sum(size for time, size in zip(times, sizes, strict=True) if start <= time < start + 60)
        for start in times
    )


def test_no_minute_has_more_requests_than_allowed(clock: Clock) -> None:
    times = admit_all(RateLimit(requests_per_minute=3), [1] * 8, clock)
    assert times == [1000, 1000, 1000, 1060, 1060, 1060, 1120, 1120]


def test_no_minute_has_more_tokens_than_allowed(clock: Clock) -> None:
    rng = random.Random(0)
    sizes = [rng.randint(1, 400) for _ in range(200)]
    times = admit_all(RateLimit(tokens_per_minute=1000), sizes, clock)
    assert 600 < most_in_a_minute(times, sizes) <= 1000
    # Waiting for the oldest to leave wastes at most one request's worth a minute.
    assert times[-1] - times[0] <= 60 * sum(sizes) / 600


def test_what_a_request_did_not_cost_is_given_back(clock: Clock) -> None:
    limit = RateLimit(tokens_per_minute=1000)

    async def run() -> float:
        for _ in range(5):
            limit.settle(await limit.admit(500), 100)
        return clock.now

    assert asyncio.run(run()) == 1000
    assert admit_all(limit, [501], clock) == [1060]


def test_a_late_answer_changes_nothing_that_is_over(clock: Clock) -> None:
    limit = RateLimit(tokens_per_minute=1000)

    async def run() -> None:
        late = await limit.admit(900)
        clock.now += 61
        await limit.admit(1000)
        limit.settle(late, 0)

    asyncio.run(run())
    assert admit_all(limit, [1], clock) == [1121]


def test_a_request_beyond_a_whole_minute_is_refused(clock: Clock) -> None:
    with pytest.raises(ConfigError, match=r"about 1001 tokens.* tokens_per_minute is 1000; raise"):
        admit_all(RateLimit(tokens_per_minute=1000), [1001], clock)


def test_one_wait_is_for_all(clock: Clock) -> None:
    limit = RateLimit()
    limit.hold(7)
    limit.hold(3)
    assert admit_all(limit, [1, 1], clock) == [1007, 1007]

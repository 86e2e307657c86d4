import asyncio
import threading
import time

import pytest

from lit_qagent.policies.background import BackgroundStart


def test_builds_once_for_many_waiters_and_loops() -> None:
    built = []

    def build() -> str:
        time.sleep(0.02)
        built.append(threading.current_thread().name)
        return "value"

    start = BackgroundStart("builder", build)

    async def ask() -> list[str]:
        return await asyncio.gather(*(start.get() for _ in range(5)))

    assert asyncio.run(ask()) == ["value"] * 5
    assert asyncio.run(ask()) == ["value"] * 5
    assert built == ["builder"]


def test_one_cancelled_waiter_does_not_cancel_the_others() -> None:
    release = threading.Event()

    def build() -> int:
        release.wait(5)
        return 7

    start = BackgroundStart("builder", build)

    async def ask() -> int:
        first, second = asyncio.create_task(start.get()), asyncio.create_task(start.get())
        await asyncio.sleep(0)
        first.cancel()
        release.set()
        return await second

    assert asyncio.run(ask()) == 7


def test_an_error_reaches_everyone_and_take_forgets_it() -> None:
    results: list[int | Exception] = [OSError("no memory"), 3]

    def build() -> int:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    start = BackgroundStart("builder", build)
    for _ in range(2):
        with pytest.raises(OSError, match="no memory"):
            asyncio.run(start.get())
    taken = start.take()
    assert taken is not None
    assert isinstance(taken.exception(), OSError)
    assert start.take() is None
    assert asyncio.run(start.get()) == 3


def test_a_value_is_forgotten_once_and_only_while_it_is_the_one() -> None:
    values = iter(["first", "second"])
    start = BackgroundStart("builder", lambda: next(values))
    assert not start.forget("first")
    first = asyncio.run(start.get())
    assert start.forget(first)
    assert not start.forget(first)
    assert asyncio.run(start.get()) == "second"
    assert not start.forget(first)
    assert asyncio.run(start.get()) == "second"


def test_a_build_that_failed_is_no_value_to_forget() -> None:
    def build() -> str:
        raise OSError("no memory")

    start = BackgroundStart("builder", build)
    with pytest.raises(OSError, match="no memory"):
        asyncio.run(start.get())
    assert not start.forget("value")

"""Starts something heavy once, in a thread, when it is first needed."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class BackgroundStart(Generic[T]):
    """A value that is built once, in a daemon thread, while event loops wait for it.

    Any number of coroutines, in one event loop or in several, may ask at the same time. A failed
    build gives the same error to all of them, also later.

    Args:
        name: Name of the thread.
        build: Makes the value; may take minutes.
    """

    def __init__(self, name: str, build: Callable[[], T]) -> None:
        self._name = name
        self._build = build
        self._lock = threading.Lock()
        self._value: Future[T] | None = None

    async def get(self) -> T:
        """Return the value, building it first if nobody has asked before."""
        with self._lock:
            if self._value is None:
                self._value = Future()
                # A running future cannot be cancelled by one of several that wait for it.
                self._value.set_running_or_notify_cancel()
                threading.Thread(
                    target=self._run, args=(self._value,), name=self._name, daemon=True
                ).start()
            value = self._value
        return await asyncio.wrap_future(value)

    def take(self) -> Future[T] | None:
        """Forget the value and return it, or None if nobody has asked for it."""
        with self._lock:
            value, self._value = self._value, None
        return value

    def forget(self, value: T) -> bool:
        """Forget a built value that is of no use any more; False if somebody else did already."""
        with self._lock:
            current = self._value
            if current is None or not current.done() or current.exception() is not None:
                return False
            if current.result() is not value:
                return False
            self._value = None
            return True

    def _run(self, value: Future[T]) -> None:
        """Build the value; the thread hands every error on."""
        try:
            value.set_result(self._build())
        except BaseException as error:
            value.set_exception(error)

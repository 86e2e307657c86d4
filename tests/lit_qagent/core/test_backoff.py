import email.utils
import time

import pytest

from lit_qagent.core.backoff import retry_after_s, wait_s


def test_waits_double_with_jitter_up_to_half_a_minute() -> None:
    for attempt, longest in ((0, 0.5), (1, 1.0), (3, 4.0), (6, 30.0), (5000, 30.0)):
        waits = [wait_s(attempt) for _ in range(50)]
        assert all(longest / 2 <= wait <= longest for wait in waits)
        assert len(set(waits)) > 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), (None, None), ("soon", None), ("", None)],
)
def test_retry_after_as_a_number(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value) == seconds


@pytest.mark.parametrize("use_gmt", [True, False])  # "GMT", or "-0000": of unknown origin
def test_retry_after_as_a_date(use_gmt: bool) -> None:
    later = email.utils.formatdate(time.time() + 60, usegmt=use_gmt)
    assert 55 < (retry_after_s(later) or 0) <= 60
    assert retry_after_s(email.utils.formatdate(time.time() - 60, usegmt=use_gmt)) == 0.0

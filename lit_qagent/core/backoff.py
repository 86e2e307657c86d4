"""How long to wait before a request is tried again."""

import email.utils
import random
from datetime import UTC, datetime

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0


def wait_s(attempt: int) -> float:
    """Return a growing, jittered wait before the next attempt, in seconds.

    Args:
        attempt: Failed attempts before this one.
    """
    longest = min(_FIRST_WAIT_S * 2 ** min(attempt, 16), _LONGEST_WAIT_S)
    return random.uniform(longest / 2, longest)


def retry_after_s(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, a number or a date; None if neither.

    Examples:
        >>> retry_after_s("3")
        3.0
        >>> retry_after_s("soon") is None
        True
    """
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:  # "-0000": a time in UTC of unknown origin
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())

"""Time as an argument: what decides takes a `Clock`, the composition root passes the real one."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def wall_clock() -> datetime:
    """Return the time of day."""
    return datetime.now(UTC)

"""When a site gives vaccines: decided by the seed, the site and the day, without any state.

So a day that is added later, or again on another machine, has the same slots as if it had been there from
the start.
"""

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from zlib import crc32

SUNDAY = 6
_OPENS = time(8)
_STEPS_MINUTES = (20, 30, 40, 60)


def slots_of(seed: int, site: int, day: date) -> Sequence[datetime]:
    """Return when the slots of a site start on a day; on Sundays three sites of four are closed."""
    if day.weekday() == SUNDAY and site % 4:
        return ()
    draw = crc32(f"{seed} {site} {day.toordinal()}".encode())
    first = datetime.combine(day, _OPENS) + timedelta(minutes=30 * (draw % 9))
    step = timedelta(minutes=_STEPS_MINUTES[(draw >> 8) % len(_STEPS_MINUTES)])
    return [first + step * number for number in range(2 + (draw >> 16) % 8)]

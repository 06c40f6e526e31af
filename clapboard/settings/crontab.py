"""The next time of a crontab line in this machine's local time, as Debian's cron reads it."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfoNotFoundError

import tzlocal
from cronsim import CronSim, CronSimError

_NUM_FIELDS = 5


def next_time(crontab: str, after: float) -> float:
    """The first time after `after` that matches the line, in seconds since 1970.

    At a clock change, an hour that occurs twice counts once, the first time; a time in a skipped hour comes right after
    it. Raises `ValueError`, worded as the end of a sentence, if the line is not valid or never matches.
    """
    try:
        if len(crontab.split()) != _NUM_FIELDS:
            raise CronSimError("Wrong number of fields")
        moment = next(CronSim(crontab, datetime.fromtimestamp(after, tzlocal.get_localzone())), None)
    except CronSimError as error:
        fault = str(error)[:1].lower() + str(error)[1:]
        raise ValueError(f"must be a crontab line, such as 0 3 * * *, but has a {fault}") from None
    except ZoneInfoNotFoundError:
        raise ValueError("needs the name of a time zone in TZ, such as Europe/Berlin") from None
    if moment is None:
        raise ValueError("names a date that never occurs")
    return moment.timestamp()

"""When a deployment starts by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csr.errors import ConfigError

if TYPE_CHECKING:
    from prefect.client.schemas.schedules import CronSchedule


def cron_schedule(cron: str) -> CronSchedule:
    """The active schedule of a cron expression, in UTC. ConfigError where it is none."""
    from prefect.client.schemas.schedules import CronSchedule

    try:
        return CronSchedule(cron=cron, timezone="UTC")
    except ValueError:
        raise ConfigError(
            f"--cron {cron!r} is no cron expression. Write five fields, such as "
            '"0 1 * * *" for every night at one.'
        ) from None

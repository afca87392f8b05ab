"""No test asks the network: the packages read these variables when they are imported."""

import os

from flows.environment import OFFLINE, TELEMETRY

for setting in (*OFFLINE, *TELEMETRY):
    os.environ.setdefault(setting.name, setting.value)

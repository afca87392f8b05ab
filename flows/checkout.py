"""The deployments' pull step: a flow run starts in the checkout that its worker runs from, or in
the folder into which the package was installed.

`deploy/prefect.yaml` names it, so that no path of the machine that deploys is written down:
Prefect's default would note that one, and a worker on another machine may have its code elsewhere.
"""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def enter_checkout() -> dict[str, str]:
    """Make the checkout the working directory, from which recipes are looked up."""
    os.chdir(CHECKOUT)
    return {"directory": str(CHECKOUT)}

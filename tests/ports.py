"""Ports for servers that choose none themselves."""

import random
import socket

_BELOW_THE_KERNELS_OWN = range(10_000, 32_000)
"""What is handed out to connections and to port 0 lies above, on Linux: between the choice and a
server's start, nobody comes upon one of these by chance."""


def free_port() -> int:
    """A port of the loopback at which nobody listens."""
    while True:
        port = random.SystemRandom().choice(_BELOW_THE_KERNELS_OWN)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port

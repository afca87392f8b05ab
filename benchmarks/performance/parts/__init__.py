"""One comparison a file; each runs in a process of its own, as `python -m` does it."""

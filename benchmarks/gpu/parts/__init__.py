"""One file a part: `measure(bench)` returns its figures as plain JSON."""

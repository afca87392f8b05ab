"""What people have said so far of an attempt's responses, one small file a verdict.

```
verdicts/<annotator>/00000007.parquet
```
Each file is one row of the `annotations` table, written whole before the page goes on, so that
nothing is lost when a process is killed. A later verdict of the same person on the same response
replaces the earlier one.
"""

from __future__ import annotations

from pathlib import Path

from csr.annotations import Annotation
from storage.critique import annotations_from_table
from storage.tables import read_table


def read_verdicts(directory: Path) -> list[Annotation]:
    """Each annotator's last verdict on each response, in the order of annotators and time."""
    latest: dict[tuple[str, str], Annotation] = {}
    for file in sorted(directory.glob("*/*.parquet")):
        for verdict in annotations_from_table(read_table(file, "annotations")):
            latest[verdict.annotator, verdict.response_id] = verdict
    return list(latest.values())

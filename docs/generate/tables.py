"""Every table that a run writes, from the schemas that write it; and what is measured."""

from __future__ import annotations

from flows.metric_names import METRICS
from storage.schema import TABLES, Table

INTRODUCTION = """\
# Tables and figures

A run is Parquet and JSON; duckdb, pandas and `datasets` read it without CSR. Column units and
descriptions also stand in each file's Arrow metadata. A column marked *null* may be empty. Where
each file lies:

```text
<home>/<run>/run.json  prompts.parquet  quarantine.parquet  report.html
<home>/<run>/iterations/<NN>/attempts/<A>/manifest.json
                                          nodes/ annotations/ responses/ pairs/ demonstrations/
                                          policy/ evaluation/
```

```sql
select chosen_text, rejected_text, margin
from 'runs/tiny-b0f2/iterations/02/attempts/1/pairs/*.parquet' order by margin desc limit 5
```
"""


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join([INTRODUCTION, *map(_table, TABLES.values()), _metrics()])


def _table(table: Table) -> str:
    rows = [
        f"| `{c.name}` | {c.type} | {c.unit} | {c.description}{' *(null)*' if c.nullable else ''} |"
        for c in table.columns
    ]
    key = ", ".join(f"`{column}`" for column in table.key)
    return "\n".join(
        [
            f"## {table.name}\n",
            f"Version {table.version}; ordered and named by {key}.\n",
            "| column | type | unit | what |",
            "|---|---|---|---|",
            *(row.replace("<", "&lt;") for row in rows),
            "",
        ]
    )


def _metrics() -> str:
    lines = ["## Figures of an evaluation\n", "Shares are fractions in [0, 1].\n"]
    lines += ["| figure | what | |", "|---|---|---|"]
    for group in METRICS.values():
        lines += [f"| `{m.name}` | {m.title} | {m.better} |" for m in group]
    return "\n".join([*lines, ""])

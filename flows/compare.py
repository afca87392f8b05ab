"""Several runs side by side: each configuration's figures over its seeds, and a verdict.

A hallucination figure stands beside recall and length everywhere: a policy that says
less hallucinates less, which is no gain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from csr.errors import ConfigError
from csr.protocols import Json
from flows.costs import COST_NAMES
from flows.matched_recall import RECALL_FALLS, chair_s_at
from flows.metric_names import METRIC_NAMES, TESTED_METRICS
from flows.paired import PairedTests

COLUMNS = (*METRIC_NAMES, *COST_NAMES)
BASE_LABEL = "base"
MAX_RECALL_FALL = 0.03
"""A larger fall in recall means that less of the image is described."""
MAX_LENGTH_CHANGE = 0.10
"""A larger relative change in length makes hallucination figures hard to compare."""

_LENGTHS = ("mean_response_sentences", "mean_response_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMetrics:
    """One run's figures. Runs of one `label` differ by seed alone."""

    label: str
    seed: int
    base: Mapping[str, float]
    iterations: Mapping[int, Mapping[str, float]]
    """Number, from 1 -> figures, ascending; an iteration without figures is absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A figure over seeds."""

    mean: float
    min: float
    max: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One configuration after one iteration; iteration 0 is before training."""

    label: str
    iteration: int
    seeds: tuple[int, ...]
    metrics: dict[str, Spread]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What changed in one configuration, against its own base or against a control."""

    label: str
    against: str
    iteration: int
    chair_s_change: Spread | None
    """Relative: -0.8 is a fall by 80 %. None where it is not measured or divides by zero."""
    recall_change: Spread | None
    """A difference of fractions: -0.01 is one point less."""
    length_change: Spread | None
    """Relative, in sentences (in tokens where sentences are not measured)."""
    other_changes: Mapping[str, Spread]
    """Differences of fractions of other figures; empty where `chair_s` is measured."""
    cautions: tuple[str, ...]
    """Why a lower hallucination rate may be no gain."""

    @property
    def text(self) -> str:
        """One line for people."""
        parts = [
            f"chair_s {_signed(self.chair_s_change, '%')}" if self.chair_s_change else "",
            f"recall {_signed(self.recall_change, ' points')}" if self.recall_change else "",
            f"length {_signed(self.length_change, '%')}" if self.length_change else "",
            *(f"{name} {_signed(each, ' points')}" for name, each in self.other_changes.items()),
        ]
        figures = ", ".join(filter(None, parts)) or "nothing to compare"
        cautions = "".join(f" Caution: {caution}." for caution in self.cautions)
        where = f"{self.label}, iteration {self.iteration}, against {self.against}"
        return f"{where}: {figures}.{cautions}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedRow:
    """One configuration's lowest chair_s at recalls that stay near the base's."""

    label: str
    at: dict[float, Spread | None]
    """Allowed fall of recall, a difference of fractions -> chair_s over runs; None where a run
    lacks the figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The table and the verdicts. `columns` are those that any run measured."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    verdicts: tuple[Verdict, ...]
    matched: tuple[MatchedRow, ...] = ()
    """None where recall or CHAIR is not measured."""
    tests: PairedTests = field(default_factory=PairedTests)
    """Each run's last iteration against its base, and against the control of its seed."""
    conditions: Mapping[str, Json] = field(default_factory=dict)
    """Run -> benchmark -> under which conditions its figures hold."""
    cautions: tuple[str, ...] = ()
    """Why the figures of some runs are not comparable."""


def compare_runs(
    runs: Sequence[RunMetrics],
    *,
    control: str | None = None,
    columns: Sequence[str] = COLUMNS,
) -> Comparison:
    """Compare runs; labels keep the order in which they first occur.

    `control` is the label that every other one is also held against, e.g. training on
    random pairs. ConfigError without runs, for one seed twice under one label, and for
    a control that is not among the labels.
    """
    by_label = _group(runs)
    if control is not None and control not in by_label:
        raise ConfigError(
            f"There is no run of the control {control!r}. Labels: {', '.join(by_label)}."
        )
    rows = _base_rows(by_label, columns)
    for label, group in by_label.items():
        for iteration in sorted({number for run in group for number in run.iterations}):
            having = [run for run in group if iteration in run.iterations]
            rows.append(_row(label, iteration, having, columns))
    verdicts = [_against_base(label, group) for label, group in by_label.items()]
    if control is not None:
        others = [label for label in by_label if label != control]
        verdicts += [_against_control(by_label[label], by_label[control]) for label in others]
    return Comparison(
        columns=tuple(c for c in columns if any(c in row.metrics for row in rows)),
        rows=tuple(rows),
        verdicts=tuple(verdict for verdict in verdicts if verdict is not None),
        matched=tuple(
            row
            for label, group in by_label.items()
            if any((row := _matched(label, group)).at.values())
        ),
    )


def _matched(label: str, group: Sequence[RunMetrics]) -> MatchedRow:
    found = {
        fall: [chair_s_at(run.base, list(run.iterations.values()), fall) for run in group]
        for fall in RECALL_FALLS
    }
    return MatchedRow(
        label=label,
        at={fall: None if None in values else _spread(values) for fall, values in found.items()},
    )


def _group(runs: Sequence[RunMetrics]) -> dict[str, list[RunMetrics]]:
    if not runs:
        raise ConfigError("There is nothing to compare: give at least one run.")
    by_label: dict[str, list[RunMetrics]] = {}
    for run in runs:
        group = by_label.setdefault(run.label, [])
        if any(other.seed == run.seed for other in group):
            raise ConfigError(
                f"Two runs are labelled {run.label!r} and have seed {run.seed}: they would count "
                "twice in the mean. Leave one out, or give it a label of its own."
            )
        group.append(run)
    return by_label


def _metrics(run: RunMetrics, iteration: int) -> Mapping[str, float]:
    return run.base if iteration == 0 else run.iterations[iteration]


def _row(label: str, iteration: int, runs: Sequence[RunMetrics], columns: Sequence[str]) -> Row:
    metrics = {}
    for column in columns:
        figures = [_metrics(run, iteration).get(column) for run in runs]
        spread = _spread(figures)
        if spread is not None:
            metrics[column] = spread
    seeds = tuple(sorted(run.seed for run in runs))
    return Row(label=label, iteration=iteration, seeds=seeds, metrics=metrics)


def _base_rows(by_label: Mapping[str, list[RunMetrics]], columns: Sequence[str]) -> list[Row]:
    """Iteration 0 of each label, or one row where all labels start from the same bases."""
    starts = [{tuple(sorted(run.base.items())) for run in runs} for runs in by_label.values()]
    if all(start == starts[0] for start in starts):
        everyone = [run for runs in by_label.values() for run in runs]
        by_seed = {run.seed: run for run in everyone}
        return [_row(BASE_LABEL, 0, list(by_seed.values()), columns)]
    return [_row(label, 0, runs, columns) for label, runs in by_label.items()]


def _spread(figures: Sequence[float | None]) -> Spread | None:
    """Over the figures that exist; None where none does."""
    there = [figure for figure in figures if figure is not None]
    if not there:
        return None
    mean = sum(there) / len(there)
    return Spread(mean=mean, min=min(there), max=max(there), count=len(there))


def _against_base(label: str, group: Sequence[RunMetrics]) -> Verdict | None:
    """The last iteration of which every seed has figures, each seed against its own base."""
    iteration = last_common([run.iterations for run in group])
    if iteration is None:
        return None
    pairs = [(run.base, _metrics(run, iteration)) for run in group]
    return _verdict(label, BASE_LABEL, iteration, pairs)


def _against_control(group: Sequence[RunMetrics], control: Sequence[RunMetrics]) -> Verdict | None:
    """The last iteration of which all runs of both have figures: by seed, else by means."""
    iteration = last_common([run.iterations for run in (*group, *control)])
    if iteration is None:
        return None
    of_seed = {run.seed: run for run in control}
    if all(run.seed in of_seed for run in group):
        pairs = [
            (_metrics(of_seed[run.seed], iteration), _metrics(run, iteration)) for run in group
        ]
    else:
        pairs = [(_means(control, iteration), _means(group, iteration))]
    return _verdict(group[0].label, control[0].label, iteration, pairs)


def standing_caution(attempt_id: str, *, held: bool, stale: bool) -> str:
    """Why an attempt's figures are not those of the run's current policy; "" where they are."""
    if stale:
        return f"{attempt_id} is stale: what it builds on was replaced since"
    return f"{attempt_id} is held by a gate, so the run does not go on from it" if held else ""


def last_common(runs: Sequence[Iterable[int]]) -> int | None:
    """The last iteration number that all of them have."""
    return max(set.intersection(*map(set, runs)), default=None)


def _means(runs: Sequence[RunMetrics], iteration: int) -> dict[str, float]:
    row = _row("", iteration, runs, (*TESTED_METRICS, *_LENGTHS))
    return {name: spread.mean for name, spread in row.metrics.items()}


def _verdict(
    label: str,
    against: str,
    iteration: int,
    pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]],
) -> Verdict:
    length = next((name for name in _LENGTHS if all(name in new for _, new in pairs)), _LENGTHS[0])
    recall = _spread([_difference(old, new, "recall") for old, new in pairs])
    length_change = _spread([_relative(old, new, length) for old, new in pairs])
    cautions = []
    if recall is not None and recall.mean < -MAX_RECALL_FALL:
        cautions.append(
            f"recall fell by more than {MAX_RECALL_FALL * 100:.0f} points, so less is described"
        )
    if length_change is not None and abs(length_change.mean) > MAX_LENGTH_CHANGE:
        cautions.append(f"the length changed by more than {MAX_LENGTH_CHANGE:.0%}")
    return Verdict(
        label=label,
        against=against,
        iteration=iteration,
        chair_s_change=_spread([_relative(old, new, "chair_s") for old, new in pairs]),
        recall_change=recall,
        length_change=length_change,
        other_changes=_other_changes(pairs),
        cautions=tuple(cautions),
    )


def _other_changes(
    pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]],
) -> dict[str, Spread]:
    """What tells of the policy where `chair_s` does not; `recall` is told in any case."""
    if any("chair_s" in new for _, new in pairs):
        return {}
    changes = {
        name: _spread([_difference(old, new, name) for old, new in pairs])
        for name in TESTED_METRICS
        if name != "recall"
    }
    return {name: change for name, change in changes.items() if change is not None}


def _difference(old: Mapping[str, float], new: Mapping[str, float], name: str) -> float | None:
    return new[name] - old[name] if name in old and name in new else None


def _relative(old: Mapping[str, float], new: Mapping[str, float], name: str) -> float | None:
    difference = _difference(old, new, name)
    return difference / old[name] if difference is not None and old[name] else None


def _signed(spread: Spread, unit: str) -> str:
    mean = f"{spread.mean * 100:+.1f}{unit}"
    if spread.count == 1:
        return mean
    return f"{mean} ({spread.min * 100:+.1f} to {spread.max * 100:+.1f})"

"""Every event of a run disturbed, one after another: `make soak`, or some parts of it by name.

python -m tests.faults.soak [kill torn twice full full_once read_only engines]
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.faults import cases
from tests.faults.cases import Case, Result, Undisturbed

NUM_DOUBLE_KILLS = 100
SEED = 7

PARTS: dict[str, tuple[str, Callable[[Undisturbed], list[Case]]]] = {
    "kill": ("SIGKILL just before an event", cases.kills),
    "torn": ("SIGKILL with a file half written", cases.tears),
    "twice": (
        "SIGKILL at a random event, and again in the recovery",
        lambda peace: cases.double_kills(peace, NUM_DOUBLE_KILLS, SEED),
    ),
    "full": ("disk full from an event on", lambda peace: cases.refusals(peace, "full")),
    "full_once": (
        "one write finds the disk full",
        lambda peace: cases.refusals(peace, "full_once"),
    ),
    "read_only": (
        "file system read-only from an event on",
        lambda peace: cases.refusals(peace, "read_only"),
    ),
}
ENGINES = "engines"


def main() -> int:
    """0 where every case went well."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join((*PARTS, ENGINES))}; none is all")
    parser.add_argument("--jobs", type=int, default=2, help="scripted runs at a time")
    arguments = parser.parse_args()
    chosen = arguments.parts or [*PARTS, ENGINES]
    if unknown := set(chosen) - {*PARTS, ENGINES}:
        parser.error(f"unknown: {', '.join(unknown)}")
    lines, all_well = ["| injected | cases | recovered |", "|---|---|---|"], True
    with tempfile.TemporaryDirectory(prefix="csr-soak-") as folder:
        peace = cases.undisturbed(Path(folder))
        print(f"An undisturbed run has {len(peace.events)} events.", flush=True)
        for part in chosen:
            injected, results = _results(part, peace, Path(folder) / ENGINES, arguments.jobs)
            bad = [result for result in results if result.problems]
            num_twice = sum(len(r.faults) > 1 and r.num_faults == len(r.faults) for r in results)
            note = f" ({num_twice} of them killed twice)" if part == "twice" else ""
            count = f"{len(results) - len(bad)} of {len(results)}"
            print(f"{injected}: {count}{note}", flush=True)
            lines.append(f"| {injected}{note} | {len(results)} | {count} |")
            all_well = all_well and not bad
    print("\n".join(lines))
    return 0 if all_well else 1


def _results(
    part: str, peace: Undisturbed, engines_folder: Path, num_jobs: int
) -> tuple[str, list[Result]]:
    if part == ENGINES:
        from tests.faults import real_engines

        engines_folder.mkdir()
        results = real_engines.all_results(engines_folder, _show)
        return "SIGKILL with vLLM, TRL and open_clip at work", results
    injected, make = PARTS[part]
    return injected, cases.run_all(peace, make(peace), num_jobs, _show)


def _show(result: Result) -> None:
    told = f"\nFAILED {result.name}: {'; '.join(result.problems[:5])}\n"
    print(told if result.problems else ".", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

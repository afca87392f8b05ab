"""Every command in the docs: parsed by the real command line, and run where a second is enough.

What is not run is listed with its reason; its recipe and settings are still checked.
"""

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from flows.cli import app
from flows.config import load_recipe, run_id_of
from tests.documents import (
    PAGES,
    ROOT,
    Command,
    blocks,
    commands_of,
    inline_commands,
    ours,
    split,
    verbs,
)
from tests.scripted_run import Csr, Silent, write_recipe

RUN = "tiny-b0f2"
STANDS_FOR = {
    "RUN": RUN,
    "OTHER": "again",
    "RANDOM": "random",
    "random-2b6d": "random",
    "tiny-8870": "again",
}
"""What the pages call a run -> the run of this test that stands for it."""
PROMPTS = {"PROMPT_ID": "7"}
EXAMPLE = re.compile(r"\b(?:tiny|random|own-data)-[0-9a-f]{4}\b")
NOT_RUN = {
    "demo": "minutes: builds the world and trains on it; `make demo` is CI's own check",
    "run": "needs engines; its recipe and settings are checked",
    "serve": "runs until it is stopped; tests/browser and tests/integration run it",
    "deploy": "needs a Prefect server; tests/integration/test_prefect_service.py has one",
    "worker": "runs until it is stopped; tests/integration/test_prefect_service.py has one",
    "review": "waits for people; tests/unit/test_review.py and tests/browser do",
    "evaluate /path/to/a/model": "needs a model",
    "plan recipes/own_data.yaml --gpu A100": "needs a model",
    "compare --home runs/results": "reads the runs of a benchmark of hours",
    "compare tiny-b0f2 --markdown --plot": "draws chair_s, which scripted runs do not have",
    "score": "reads a file of responses; tests/unit/test_scoring.py does",
    "lmms-eval": "needs lmms-eval in an environment of its own",
    "track": "logs into another program; the tests of the trackers do",
    "export tiny-b0f2/03 --format model --what adapter": "scripted policies have no adapter",
    "export tiny-b0f2/02 --format trl --output out/p --push": "needs a hub",
    "export tiny-b0f2/02 --format model --output my-model --push": "needs a hub",
    "doctor": "tells of this machine, and fails where it lacks something",
    "completion --install": "writes into the user's folder; tests/unit/test_completion.py runs it",
}
MAKE_TARGETS = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def is_run(command: Command) -> bool:
    text = " ".join(command.words[1:])
    return not any(text == each or text.startswith(f"{each} ") for each in NOT_RUN)


def once(commands: Iterable[Command]) -> list[Command]:
    """Each command once, however many pages have it."""
    return list({command.words: command for command in commands}.values())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory like a checkout's, with runs of the names that the pages use."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    with pytest.MonkeyPatch.context() as monkeypatch:
        csr = Csr(monkeypatch, Silent())  # type: ignore[arg-type]
        home = ("--home", folder / "runs")
        recipe = write_recipe(folder / "data", num_iterations=3)
        assert csr("run", recipe, "--run-id", RUN, *home).status == 0
        for seed, name in enumerate(("again", "random"), start=1):
            other = write_recipe(folder / name, name=name, seed=seed, num_iterations=1)
            assert csr("run", other, "--run-id", name, *home).status == 0
        for number in (2, 2):
            assert csr("rerun", f"{RUN}/0{number}", *home).status == 0
    return folder


def as_run(words: tuple[str, ...]) -> list[str]:
    """The words with the test's own runs and prompts in place of the pages' names."""
    replaced = []
    for word in words:
        name, slash, rest = word.partition("/")
        replaced.append(PROMPTS.get(word, STANDS_FOR.get(name, name) + slash + rest))
    return [word for word in replaced if word != "..."]


@pytest.mark.parametrize("command", ours("csr"), ids=str)
def test_the_command_line_takes_every_command(command: Command) -> None:
    _, bound, _ = app.parse_args(command.words[1:], exit_on_error=False, print_error=False)
    recipe = bound.arguments.get("recipe")
    if recipe is not None and Path(recipe).parts[0] == "recipes":
        settings = bound.arguments.get("options")
        load_recipe(ROOT / recipe, settings.set if settings else ())


@pytest.mark.parametrize("command", once(filter(is_run, ours("csr"))), ids=str)
def test_what_takes_a_second_works(
    command: Command, place: Path, csr: Csr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "200")
    answer = csr(*as_run(command.words[1:]))
    assert (answer.status, answer.err.partition("error:")[2]) == (0, "")
    assert answer.out


def test_the_runs_of_the_examples_have_the_names_that_the_recipe_gives_them() -> None:
    tiny = ROOT / "recipes" / "tiny.yaml"
    made = {
        run_id_of(load_recipe(tiny, settings))
        for settings in ((), ("seed=12",), ("source.pairing=random", "name=random"))
    }
    assert made == {RUN, "tiny-8870", "random-2b6d"}
    sources = [f for p in ("csr", "flows", "storage", "docs") for f in (ROOT / p).rglob("*.py")]
    named = {name for page in (*PAGES, *sources) for name in EXAMPLE.findall(page.read_text())}
    assert named == made


def test_what_is_not_run_has_a_command_that_it_is_about() -> None:
    texts = [" ".join(command.words[1:]) for command in ours("csr")]
    assert [each for each in NOT_RUN if not any(t.startswith(each) for t in texts)] == []


@pytest.mark.parametrize("command", ours("make"), ids=str)
def test_make_has_every_target_and_the_files_it_is_given(command: Command) -> None:
    words = [word for word in command.words[1:] if "=" not in word]
    assert set(words) <= set(MAKE_TARGETS)
    for word in " ".join(command.words).replace("=", " ").split():
        if word.startswith("tests/"):
            assert (ROOT / word).exists()


@pytest.mark.parametrize("command", [*ours("python"), *ours("python3")], ids=str)
def test_python_has_every_module(command: Command) -> None:
    words = list(command.words[1:])
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]) is not None
    else:
        assert (ROOT / words[0]).exists()


@pytest.mark.parametrize("command", inline_commands(), ids=str)
def test_commands_in_the_text_are_known(command: Command) -> None:
    program, verb, *rest = command.words
    if program == "make":
        assert verb in MAKE_TARGETS
        return
    if verb.startswith("-") or verb == "COMMAND":
        return
    known = {name for each in app[verb].assemble_argument_collection() for name in each.names}
    given = {word.partition("=")[0] for word in rest if word.startswith("--")}
    assert given <= known | {"--help"}


def test_the_collector_sees_the_commands(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```\ncsr ls   # runs\ncd x && csr show a/01 --json | jq\n```\n```yaml\ncsr ls\n```\n"
    )
    found = [each.words for block in blocks(page) for each in commands_of(block)]
    assert found == [("csr", "ls"), ("cd", "x"), ("csr", "show", "a/01", "--json"), ("jq",)]
    assert split("it's text") == []
    assert len(PAGES) > 20
    assert {command.words[1] for command in ours("csr")} >= set(verbs())

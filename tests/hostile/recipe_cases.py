"""Recipe files and overrides. Builders get a good recipe's text and return the file's bytes."""

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from tests.hostile.cases import Corpus, Fine, Refused

UNREAD = "cannot be read as YAML"
ALIAS = "is not read, write out what it stands for"


def behind(*lines: str) -> Callable[[str], bytes]:
    """The good recipe with lines behind it."""
    return lambda good: "\n".join([good, *lines, ""]).encode()


def with_value(place: str, value: Any) -> Callable[[str], bytes]:
    """The good recipe with one setting changed."""

    def build(good: str) -> bytes:
        document = yaml.safe_load(good)
        *parents, last = place.split(".")
        folder = document
        for name in parents:
            if isinstance(folder.get(name), str):
                folder[name] = {"name": folder[name]}
            folder = folder.setdefault(name, {})
        folder[last] = value
        return yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass")

    return build


def with_text(place: str, text: str) -> Callable[[str], bytes]:
    """The good recipe with one setting given as YAML that no dumper writes."""
    mark = "put the text here"
    return lambda good: with_value(place, mark)(good).replace(mark.encode(), text.encode())


def whole(data: bytes) -> Callable[[str], bytes]:
    """Another file altogether."""
    return lambda good: data


LAUGHS = [
    "a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]",
    *(f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]" for p, n in pairwise("abcdefghi")),
]
MERGES = [
    "a: &a {x: 1}",
    *(f"{n}: &{n} {{<<: [{', '.join([f'*{p}'] * 9)}]}}" for p, n in pairwise("abcdefghi")),
]
TOO_LONG = "has more than 65,536 bytes"
DEEP = "nested more than 32 deep"
PAIR = "holds a NUL or half of a surrogate pair"
TAG = "could not determine a constructor for the tag"

RECIPES = Corpus()

for name, build, words in [
    ("billion_laughs", behind(*LAUGHS), ALIAS),
    ("billion_laughs_by_merging", behind(*MERGES), ALIAS),
    ("alias_of_itself", behind("a: &a [*a]"), ALIAS),
    ("one_alias", behind("a: &a 1", "b: *a"), ALIAS),
    ("python_call", behind("a: !!python/object/apply:os.system ['touch owned']"), TAG),
    ("python_object", behind("a: !!python/object:subprocess.Popen {args: ls}"), TAG),
    ("python_name", behind("a: !!python/name:os.system"), TAG),
    ("python_module", behind("a: !!python/module:antigravity"), TAG),
    ("unknown_tag", behind("a: !vault x"), TAG),
    ("two_megabytes", behind("#" * 2**21), TOO_LONG),
    ("nested_60000_deep", whole(b"a: " + b"[" * 60_000), DEEP),
    ("nested_500_deep", whole(b"a: " + b"[" * 500 + b"]" * 500), DEEP),
    ("name_of_50000_letters", with_value("name", "x" * 50_000), "name: String should match"),
    ("four_thousand_keys", behind(*(f"k{n}: 1" for n in range(4_000))), "unknown setting"),
    ("key_twice", behind("seed: 1", "seed: 2"), "the key 'seed' stands twice"),
    ("key_twice_inside", behind("reward: {offset: 1, offset: 2}"), "'offset' stands twice"),
    ("unknown_key", behind("iterations: 3"), "Did you mean 'num_iterations'?"),
    ("unknown_key_inside", behind("reward: {image_wieght: 1}"), "Did you mean 'image_weight'?"),
    ("number_for_a_key", behind("7: seven"), "7: "),
    ("null_for_a_key", behind("null: 1"), "scripted.yaml: "),
    ("list_for_a_key", behind("[a, b]: 1"), UNREAD),
    ("truth_for_a_key", behind("on: 1"), "scripted.yaml: "),
    ("date_that_is_none", behind("name: 2024-99-99"), UNREAD),
    ("time_that_is_none", behind("a: 2024-01-01T99:99:99Z"), UNREAD),
    ("integer_tag_on_text", behind("a: !!int abc"), UNREAD),
    ("float_tag_on_text", behind("a: !!float abc"), UNREAD),
    ("truth_tag_on_text", behind("a: !!bool maybe"), UNREAD),
    ("time_tag_on_text", behind("a: !!timestamp soon"), UNREAD),
    ("binary_tag_on_text", behind("a: !!binary é"), UNREAD),
    ("integer_of_5000_digits", behind("a: " + "9" * 5000), UNREAD),
    ("empty", whole(b""), "is not a mapping of settings"),
    ("comment_alone", whole(b"# nothing\n"), "is not a mapping of settings"),
    ("list", whole(b"- a\n- b\n"), "is not a mapping of settings"),
    ("text", whole(b"hello"), "is not a mapping of settings"),
    ("two_documents", whole(b"name: a\n---\nname: b\n"), UNREAD),
    ("open_bracket", whole(b"name: ["), UNREAD),
    ("tabs", whole(b"data:\n\tprompts: x\n"), UNREAD),
    ("nul_byte", behind("a: \x00"), UNREAD),
    ("escape_byte", behind("a: \x1b[2J"), UNREAD),
    ("utf_16", lambda good: good.encode("utf-16"), UNREAD),
    ("latin_1", whole("name: é".encode("latin-1")), UNREAD),
    ("json_lines", whole(b'{"id": 1}\n{"id": 2}\n'), UNREAD),
    ("percent_for_a_weight", with_value("reward.image_weight", 90), "reward.image_weight"),
    ("negative_temperature", with_value("source.temperature", -1), "source.temperature"),
    ("top_p_above_one", with_value("source.top_p", 95), "source.top_p"),
    ("no_candidates", with_value("source.num_candidates", 0), "source.num_candidates"),
    ("negative_rate", with_value("trainer", {"name": "dpo", "learning_rate": -1}), "learning_rate"),
    ("share_above_one", with_value("data.max_bad_share", 5), "data.max_bad_share"),
    ("nan_share", with_text("data.max_bad_share", ".nan"), "data.max_bad_share"),
    ("infinite_tolerance", with_text("probe_tolerance", ".inf"), "probe_tolerance"),
    ("half_an_iteration", with_value("num_iterations", 1.5), "num_iterations"),
    ("a_thousand_iterations", with_value("num_iterations", 1000), "num_iterations"),
    ("shard_of_nothing", with_value("shard_size", 0), "shard_size"),
    ("huge_shard", with_value("shard_size", -(10**400)), "shard_size"),
    ("words_for_a_number", with_value("shard_size", "many"), "shard_size"),
    ("truth_for_a_name", with_value("name", True), "name: "),
    ("path_for_a_name", with_value("name", "../../etc"), "name: "),
    ("list_for_data", with_value("data", ["train.jsonl"]), "data: "),
    ("null_for_data", with_value("data", None), "data: "),
    ("number_for_a_sampler", with_value("sampler", 7), "sampler: needs a `name`"),
    ("list_for_a_sampler", with_value("sampler", ["scripted"]), "sampler: needs a `name`"),
    ("null_for_a_trainer", with_value("trainer", None), "trainer: "),
    ("module_for_a_sampler", with_value("sampler", "os"), "no component 'os'"),
    ("path_for_a_sampler", with_value("sampler", "../../evil"), "no component '../../evil'"),
    ("dots_for_a_sampler", with_value("sampler", "csr.samplers.vllm"), "no component"),
    ("private_sampler", with_value("sampler", "_shared"), "no component '_shared'"),
    ("dunder_setting", with_value("sampler", {"name": "scripted", "__class__": 1}), "__class__"),
    ("mapping_for_benchmarks", with_value("evaluation", {"name": "captions"}), "evaluation"),
    ("unknown_policy", with_value("on_bad_record", "ignore"), "unknown setting"),
    ("unknown_bad_record_policy", with_value("data.on_bad_record", "ignore"), "'error' or 'skip'"),
    ("surrogate_in_a_name", with_text("name", '"\\ud800"'), PAIR),
    ("surrogate_in_a_path", with_text("policy.model", '"\\ud800/model"'), PAIR),
    ("nul_in_a_path", with_text("data.prompts", '"a\\0b"'), PAIR),
    ("path_of_50000_letters", with_value("policy.model", "/" + "x" * 50_000), "model"),
    ("home_of_nobody", with_value("policy.model", "~no-such-user-here/model"), "model"),
    ("folder_for_prompts", with_value("data.prompts", "/usr"), "/usr is no file"),
    ("device_for_prompts", with_value("data.prompts", "/dev/zero"), "/dev/zero is no file"),
    ("file_for_images", with_value("data.images", "/etc/passwd"), "is no folder"),
    ("device_for_benchmark", with_value(
        "evaluation", [{"name": "captions", "prompts": "/dev/zero", "images": "/"}]
    ), "/dev/zero is no file"),
    ("world_that_is_a_number", with_value("world", 7), "world"),
]:  # fmt: skip
    RECIPES.put(name, build, Refused(words))

for name, build in {
    "byte_order_mark": lambda good: b"\xef\xbb\xbf" + good.encode(),
    "windows_line_ends": lambda good: good.replace("\n", "\r\n").encode(),
    "json_for_yaml": lambda good: yaml.safe_dump(
        yaml.safe_load(good), default_flow_style=True
    ).encode(),
    "comments_in_many_scripts": behind("# مرحبا שלום 🖼️"),
}.items():
    RECIPES.put(name, build, Fine())

OVERRIDES = Corpus()
OVERRIDES.put_all(
    {
        "no_equals_sign": ("seed", Refused("is not of the form a.b=value")),
        "no_key": ("=1", Refused("is not of the form a.b=value")),
        "two_dots": ("reward..offset=1", Refused("is not of the form a.b=value")),
        "below_a_number": ("num_iterations.x=1", Refused("is no mapping of settings")),
        "python_call": (
            "seed=!!python/object/apply:os.system ['touch owned']",
            Refused("cannot be read as a YAML value"),
        ),
        "date_that_is_none": ("seed=2024-99-99", Refused("cannot be read as a YAML value")),
        "alias": ("seed=*a", Refused("cannot be read as a YAML value")),
        "open_bracket": ("seed=[", Refused("cannot be read as a YAML value")),
        "nested_100000_deep": ("seed=" + "[" * 100_000, Refused("cannot be read as a YAML")),
        "misspelt": ("num_iteration=1", Refused("Did you mean 'num_iterations'?")),
        "wrong_type": ("num_iterations=three", Refused("num_iterations")),
    }
)


def make_folder(path: Path) -> None:
    path.mkdir()


def make_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere.yaml")


PLACES = Corpus()
"""What stands in the recipe's place: the builder makes it there."""
PLACES.put("folder", make_folder, Refused("it is no file"))
PLACES.put("pipe", os.mkfifo, Refused("it is no file"))
PLACES.put("device", make_link_to_a_device, Refused("it is no file"))
PLACES.put("dangling_link", make_dangling_link, Refused("There is no recipe at"))

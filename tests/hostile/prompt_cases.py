"""Prompt files: single records among good ones, and whole files."""

import json
from typing import Any

from csr.types import SkipReason
from tests.hostile.cases import Corpus, Fine, Quarantined, Refused

RECORD = {"id": "odd", "image": "1.png", "input": "Describe the image."}
GOOD = {"id": "good", "image": "0.png", "input": "Describe the image."}


def line(**changes: Any) -> bytes:
    """A record as a line of a file; lone surrogates are written as JSON escapes."""
    return json.dumps(RECORD | changes).encode()


def without(key: str) -> bytes:
    return json.dumps({k: v for k, v in RECORD.items() if k != key}).encode()


def invalid(words: str) -> Quarantined:
    return Quarantined(SkipReason.INVALID_RECORD, words)


def no_json(words: str = "not valid JSON") -> Quarantined:
    return Quarantined(SkipReason.INVALID_JSON, words)


MANY_KEYS = b"{" + b",".join(b'"k%d": 1' % n for n in range(50_000)) + b"}"

RECORDS = Corpus()
"""One line each, which stands between two good ones."""

RECORDS.put_all(
    {
        "no_json_at_all": (b"id,image,input", no_json()),
        "cut_in_the_middle": (line()[:30], no_json()),
        "single_quotes": (b"{'id': 1}", no_json()),
        "comma_at_the_end": (line()[:-1] + b",}", no_json()),
        "two_records_in_a_line": (line() + line(id="2"), no_json("Extra data")),
        "raw_nul_byte": (line()[:20] + b"\x00" + line()[20:], no_json()),
        "raw_line_feed_in_a_text": (line(input="one?two").replace(b"?", b"\x0b"), no_json()),
        "integer_of_5000_digits": (b'{"id": ' + b"9" * 5000 + b"}", no_json("4300")),
        "nested_100000_deep": (b'{"id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", no_json()),
        "objects_100000_deep": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, no_json()),
        "not_a_number": (b"NaN", invalid("must be an object, not float")),
        "infinite_id": (b'{"id": -Infinity, "image": "1.png", "input": "x"}', invalid("'id' is")),
        "list_for_a_record": (b'["odd", "1.png", "x"]', invalid("must be an object, not list")),
        "null_for_a_record": (b"null", invalid("must be an object, not NoneType")),
        "key_twice": (b'{"id": 1, "id": 2, "image": "1.png", "input": "x"}', invalid("twice")),
        "key_twice_far_inside": (line(image=0).replace(b"0", b'{"a":1,"a":2}'), invalid("'image'")),
        "fifty_thousand_keys": (MANY_KEYS, invalid("unknown keys")),
        "unknown_key": (line(image_path="1.png"), invalid("unknown keys 'image_path'")),
        "unknown_key_that_hides": (line(**{"\u202e\x1b[2J": 1}), invalid(r"'\u202e\x1b[2J'")),
        "no_id": (without("id"), invalid("'id' is missing")),
        "no_image": (without("image"), invalid("'image' is missing")),
        "no_input": (without("input"), invalid("'input' is missing")),
        "truth_for_an_id": (line(id=True), invalid("'id' is bool")),
        "fraction_for_an_id": (line(id=1.5), invalid("'id' is float")),
        "list_for_an_image": (line(image=["1.png"]), invalid("'image' is list")),
        "number_for_an_input": (line(input=7), invalid("'input' is int")),
        "object_for_a_reference": (line(reference={}), invalid("'reference' is dict")),
        "zero_for_a_dataset": (line(dataset=0), invalid("'dataset' is int")),
        "blank_input": (line(input=" \n\t\u3000"), invalid("'input' is blank")),
        "input_of_a_megabyte": (line(input="x" * 10**6), invalid("1,000,000 characters")),
        "id_of_a_megabyte": (line(id="7" * 10**6), invalid("1,000,000 characters")),
        "nul_in_the_input": (line(input="a\x00b"), invalid("NUL character")),
        "nul_in_the_image": (line(image="1.png\x00.txt"), invalid("NUL character")),
        "half_a_surrogate_pair": (line(input="a\ud800b"), invalid("surrogate pair")),
        "half_a_pair_in_the_id": (line(id="\udc00"), invalid("surrogate pair")),
        "half_a_pair_in_the_image": (line(image="\udcff.png"), invalid("surrogate pair")),
        "marker_inside": (line(input="Look at <image> and say."), invalid("inside the text")),
        "two_markers": (line(input="<image>\n<image>\nCompare."), invalid("inside the text")),
        "marker_alone": (line(input="<image>"), invalid("only an image marker")),
        "id_again": (
            line(id="good"),
            Quarantined(SkipReason.DUPLICATE_ID, "the id 'good' stands already in"),
        ),
    }
)


def listed(*records: object) -> bytes:
    return json.dumps(records).encode()


def lines(*records: bytes, end: bytes = b"\n") -> bytes:
    return end.join([*records, b""])


FILES = Corpus()
"""Whole files, as bytes."""

NAMES = json.dumps([GOOD, RECORD], ensure_ascii=False)
ONE, TWO = json.dumps(GOOD).encode(), line()

FILES.put_all(
    {
        "empty": (b"", Refused("is empty")),
        "blank": (b" \r\n\n\t", Refused("is empty")),
        "byte_order_mark_alone": (b"\xef\xbb\xbf", Refused("is empty")),
        "empty_list": (b"[]", Refused("is empty")),
        "empty_list_with_blanks": (b"[ \n ]", Refused("is empty")),
        "list_cut_in_the_middle": (listed(GOOD, RECORD)[:-20], Refused("not valid JSON")),
        "list_with_a_comma_at_its_end": (b"[" + ONE + b",]", Refused("not valid JSON")),
        "list_with_a_huge_integer": (
            b'[{"id": ' + b"9" * 5000 + b"}]",
            Refused("not valid JSON"),
        ),
        "two_lists": (listed(GOOD) + listed(RECORD), Refused("not valid JSON")),
        "nested_without_end": (b"[" * 10**6, Refused("not valid JSON")),
        "utf_16": (NAMES.encode("utf-16"), Refused("is not UTF-8 text")),
        "utf_16_without_mark": (NAMES.encode("utf-16-le"), Refused("not valid JSON")),
        "latin_1": ('[{"id": "é"}]'.encode("latin-1"), Refused("is not UTF-8 text")),
        "surrogate_as_bytes": (b'[{"id": "\xed\xa0\x80"}]', Refused("is not UTF-8 text")),
        "zip_archive": (b"PK\x03\x04\xff\xfe" + bytes(30), Refused("is not UTF-8 text")),
        "object_over_several_lines": (
            json.dumps(GOOD, indent=1).encode(),
            Refused("line 1: not valid JSON"),
        ),
        "wrapped_list": (b'{"data": [' + ONE + b"]}", Refused("unknown keys 'data'")),
        "csv": (b"id,image,input\n1,1.png,x\n", Refused("line 1: not valid JSON")),
        "byte_order_mark": (b"\xef\xbb\xbf" + lines(ONE, TWO), Fine(("good", "odd"))),
        "byte_order_mark_before_a_list": (
            b"\xef\xbb\xbf" + listed(GOOD, RECORD),
            Fine(("good", "odd")),
        ),
        "windows_line_ends": (lines(ONE, TWO, end=b"\r\n"), Fine(("good", "odd"))),
        "old_mac_line_ends": (lines(ONE, TWO, end=b"\r"), Fine(("good", "odd"))),
        "no_line_end": (ONE + b"\n" + TWO, Fine(("good", "odd"))),
        "blank_lines": (lines(b"", ONE, b"  ", TWO, b"", b""), Fine(("good", "odd"))),
        "list_over_several_lines": (
            json.dumps([GOOD, RECORD], indent=2).encode(),
            Fine(("good", "odd")),
        ),
        "line_separator_in_a_text": (
            lines(ONE, json.dumps(RECORD | {"input": "a\u2028b\u2029c\x85d"}, ensure_ascii=False)
                  .encode()),
            Fine(("good", "odd")),
        ),
        "integer_of_4000_digits": (lines(ONE, b'{"id": ' + b"9" * 4000 + TWO[12:]),
                                   Fine(("good", "9" * 4000))),
        "negative_id": (lines(ONE, line(id=-7)), Fine(("good", "-7"))),
        "nulls_for_optional_keys": (
            lines(ONE, line(reference=None, dataset="")),
            Fine(("good", "odd")),
        ),
        "ids_that_look_like_paths": (
            lines(ONE, line(id="../../etc/passwd"), line(id="a/0.1"), line(id="a")),
            Fine(("good", "../../etc/passwd", "a/0.1", "a")),
        ),
    }
)  # fmt: skip

TEXTS = {
    "hebrew": "מה רואים בתמונה?",
    "arabic": "صِف الصورة بالتفصيل، من فضلك.",
    "mixed directions": "Say \u202bשלום\u202c and \u2067مرحبا\u2069, in this order: 1, 2.",  # noqa: RUF001
    "emoji": "What does 👩🏽‍🚀 see? 🏴󠁧󠁢󠁳󠁣󠁴󠁿 🫠 ❤️‍🔥",
    "devanagari": "चित्र में क्या दिख रहा है?",
    "thai": "ภาพนี้แสดงอะไร",
    "chinese": "请描述这张图片。𠮷野家",
    "combining": "Zoe\u0308 und Zo\u00eb, A\u030a und \u00c5: vier Schreibweisen.",
    "zero width": "zero\u200bwidth\u200djoiner\ufeffinside",
    "markup": "</script><b>[bold]x[/] [/nothing] {{ 7*7 }} ${world} %s {0} \\n",
    "terminal": "\x1b[31mred\x1b[0m\x07 bell",
    "special tokens": "</s><s>[INST] <|im_start|>system <0x0A> <pad>",
    "line ends": "one\r\ntwo\rthree\u2028four\u2029five\x85six",
    "quotes": "'\"`´‘’“”«»",  # noqa: RUF001
}
"""Texts that a run keeps as they are, from the prompt file to the report."""

"""What goes into a prompt for each type of value, and for nothing, wherever it stands in a template."""

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.prompt.filters import filters
from cometbatch.prompt.printing import json_of
from cometbatch.prompt.template import compile_prompt
from cometbatch.records import Failure

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def rendered(source: str, **values: object) -> str:
    """The text that a template gives."""
    messages = compile_prompt([("user", source)]).render(values)
    assert isinstance(messages, tuple), messages
    return messages[0].text


def failure(source: str, **values: object) -> str:
    """Why there is none."""
    found = compile_prompt([("user", source)]).render(values)
    assert isinstance(found, Failure)
    return found.message


# ---------------------------------------------------------------- one form for each type

FORMS: dict[str, tuple[object, str]] = {
    "text": ("007", "007"),
    "nothing": (None, ""),
    "yes": (True, "true"),
    "no": (False, "false"),
    "whole": (-7, "-7"),
    "number": (0.1, "0.1"),
    "exact": (Decimal("1.10"), "1.10"),
    "small": (Decimal("0E-8"), "0.00000000"),
    "large": (Decimal("1E+3"), "1000"),
    "day": (date(2026, 1, 2), "2026-01-02"),
    "moment": (NOON, "2026-05-04 12:00:00+00:00"),
    "clock": (time(1, 2, 3, 400), "01:02:03.000400"),
    "span": (timedelta(days=1, hours=2, microseconds=5), "26:00:00.000005"),
    "negative": (timedelta(microseconds=-1), "-0:00:00.000001"),
    "bytes": ("Zoé".encode(), "Zoé"),
    "id": (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "list": ([None, True, "a'", 1.5, NOON], '[null,true,"a\'",1.5,"2026-05-04 12:00:00+00:00"]'),
    "exact ones in a list": ([Decimal("0E-8")], '["0.00000000"]'),
    "pairs": ([("k", 1)], '[["k",1]]'),
    "structure": ({"z": timedelta(days=-1), "a": {"b": b"x"}}, '{"z":"-24:00:00","a":{"b":"x"}}'),
    "odd numbers": ([math.nan, {"x": -math.inf}, 1.5, "NaN", None], '[null,{"x":null},1.5,"NaN",null]'),
}  # fmt: skip
WAYS = [
    "{{ x }}",
    "{% if true %}{{ x }}{% endif %}",
    "{{ x|string }}",
    "{{ '' ~ x }}",
    "{{ [x]|join }}",
    "{{ ['', '']|join(x) }}",
    "{{ [x]|map('string')|join }}",
    "{{ '%s' % x if x is not mapping else '%s' % (x,) }}",
    "{{ '%s' % (x,) }}",
    "{{ '%(a)s' % {'a': x} }}",
    "{{ '%s'|format(x) }}",
    "{{ '%(a)s'|format(a=x) }}",
    "{{ '{}'.format(x) }}",
    "{{ '{!s}'.format(x) }}",
    "{{ '{a}'.format(a=x) }}",
    "{{ '{a}'.format_map({'a': x}) }}",
    "{{ 'b'|replace('b', x) }}",
    "{% filter replace('', '') %}{{ x }}{% endfilter %}",
    "{% set y %}{{ x }}{% endset %}{{ y }}",
    "{% macro m(y) %}{{ y }}{% endmacro %}{{ m(x) }}",
    "{{ row['x'] }}",
    "{{ row.x }}",
    "{% for y in [x] %}{{ y }}{% endfor %}",
    "{{ {'a': x}.a }}",
    "{{ x|default('gone') }}" ,
]  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("source", WAYS)
def test_a_value_has_one_form_wherever_it_stands(source: str, name: str) -> None:
    """Printed, joined, formatted or replaced with: the same text, which is none that only Python writes."""
    value, form = FORMS[name]
    due = "gone" if value is None and "default" in source else form
    assert rendered(source, x=value) == due


@pytest.mark.parametrize("name", FORMS)
def test_json_holds_the_same_forms(name: str) -> None:
    """What JSON has no form for is a text in it, and that text is the printed one."""
    value, form = FORMS[name]
    found = json.loads(json_of(value))
    native = value is None or isinstance(value, bool | int | float | list | dict)
    assert found == (json.loads(form or "null") if native else form)


DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates() | st.timedeltas(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@settings(max_examples=200)
@given(value=st.lists(DATA) | st.dictionaries(st.text(), DATA))
def test_lists_and_structures_are_json_or_fail(value: object) -> None:
    """Whatever is in them: what is printed can be read as JSON, unless something in it is no text."""
    found = compile_prompt([("user", "{{ x }}|{{ x ~ '' }}|")]).render({"x": value})
    if isinstance(found, Failure):
        assert "not UTF-8 text" in found.message
    else:
        text = found[0].text
        half = text[: len(text) // 2 - 1]
        assert text == f"{half}|{half}|"
        json.loads(half)


@pytest.mark.parametrize(
    ("source", "value", "words"),
    [
        ("{{ x }}", b"\x00\xff", "binary data that is not UTF-8 text (byte 0xFF at 1)"),
        ("{{ x ~ '' }}", b"\xff", "binary data that is not UTF-8"),
        ("{{ x|upper }}", b"\xff", "binary data that is not UTF-8"),
        ("{{ x }}", [{"a": b"\xff"}], "binary data that is not UTF-8"),
        ("{{ '%r' % x }}", "a", "%r and %a write Python's notation"),
        ("{{ '%-5a'|format(x) }}", "a", "%r and %a write Python's notation"),
        ("{{ '{!r}'.format(x) }}", "a", "!r writes Python's notation"),
        ("{{ '{!a:>5}'.format(x) }}", "a", "!a writes Python's notation"),
        ("{{ '%d' % x }}", None, "TypeError"),
        ("{{ '{:.2f}'.format(x) }}", None, "ValueError"),
        ("{{ x + 1 }}", None, "TypeError"),
        ("{{ x.year }}", None, "'None' has no attribute 'year'"),
        ("{{ x|first }}", [], "No first item"),
        ("{{ [x]|sort }}{{ [x, 1]|sort }}", None, "TypeError"),
        ("{{ 'a'.format_map(x, x) }}", {}, "TypeError"),
        ("{{ x|items }}", 7, "TypeError"),
        ("{{ x|batch }}", [1], "TypeError"),
        ("{{ '{:{w}}'.format(x, w=10000000) }}", "a", "too wide"),
        ("{{ '{:10000000}'['format'](x) }}", "a", "too wide"),
        ("{{ (x * 1000000)|replace('a', x * 1000000) }}", "a", "too long"),
        ("{{ ([x * 1000000] * 1000)|join }}", "a", "too long"),
        ("{{ x }}", object(), "'object' is not a value that can be printed"),
    ],
)  # fmt: skip
def test_what_can_not_be_text_fails_its_row(source: str, value: object, words: str) -> None:
    """Rather than Python's notation, or a value made up, there is no prompt at all."""
    assert words in failure(source, x=value)


@pytest.mark.parametrize(
    ("source", "values", "due"),
    [
        ("{{ '%.2f|%5d|%s' % (x, y, z) }}", {"x": Decimal("1.005"), "y": 7, "z": "a"}, "1.00|    7|a"),
        ("{{ '%d' % x }}", {"x": Decimal("7.9")}, "7"),
        ("{{ '%5.1f' % x }}", {"x": 2.25}, "  2.2"),
        ("{{ '%s' % x }}{{ '%(a)s' % x }}", {"x": {"a": None}}, '{"a":null}'),
        ("{{ '%(a)05d' % row }}", {"a": 7, "b": None}, "00007"),
        ("{{ '100%%|%s' % x }}", {"x": "r"}, "100%|r"),
        ("{{ 7 % x }}", {"x": 4}, "3"),
        ("{{ '{:.1f} {:>4}'.format(a, b) }}", {"a": Decimal("2.25"), "b": True}, "2.2 true"),
        ("{{ '{:%Y} {:,}'.format(c, d) }}", {"c": NOON, "d": 1234}, "2026 1,234"),
        ("{{ '{0.year}'.format(x) }}", {"x": NOON}, "2026"),
        ("{{ ('<b>'|e) ~ x }}", {"x": "<i>"}, "&lt;b&gt;<i>"),
        ("{{ ('%s'|safe).format(x) }}{{ ('{}'|safe).format(x) }}", {"x": "<i>"}, "%s<i>"),
        ("{{ x|pprint }}", {"x": {"a": [True]}}, '{\n  "a": [\n    true\n  ]\n}'),
        ("{{ x|reverse }}", {"x": "abc"}, "cba"),
        ("{{ x|reverse|join }}", {"x": [1, None, 2]}, "21"),
        ("{{ x|replace('a', 'b', 1) }}", {"x": "aa"}, "ba"),
        ("{{ x|join('-', attribute='a') }}", {"x": [{"a": 1}, {"a": None}]}, "1-"),
        ("{{ x|join(attribute='a.b') }}", {"x": [{"a": {"b": True}}]}, "true"),
        ("{{ x|urlencode }}|{{ y|urlencode }}", {"x": "a b", "y": {"a": None, "b": True}}, "a%20b|a=&b=true"),
        ("{{ x|urlencode }}", {"x": [["k", [1]]]}, "k=%5B1%5D"),
        ("{{ x|xmlattr }}|{{ x|xmlattr(false) }}", {"x": {"a": True, "b": None}}, ' a="true"|a="true"'),
        ("{{ x|int }}{{ x|int(base=8) }}{{ y|int(5) }}{{ y|float(2) }}", {"x": "10", "y": "?"}, "10852"),
        ("{{ x|default('d', true) }}{{ y|default('e') }}", {"x": "", "y": ""}, "d"),
        ("{{ x|d }}{{ gone|default('g') }}", {"x": None}, "g"),
        ("{% if gone is defined %}a{% endif %}{{ x is none }}{{ x == none }}{{ not x }}", {"x": None}, "truetruetrue"),
        ("{{ x|groupby('a') }}", {"x": [{"a": 1}]}, '[[1,[{"a":1}]]]'),
        ("{{ x|dictsort }}{{ x|items }}", {"x": {"b": 1}}, '[["b",1]][["b",1]]'),
        ("{{ x|tojson(2) }}", {"x": [1]}, "[\n  1\n]"),
        ("{{ x.strip()|length }}{{ x.zfill(3) }}", {"x": "a"}, "100a"),
    ],
)  # fmt: skip
def test_numbers_texts_and_lists_go_through_as_expected(source: str, values: Mapping[str, object], due: str) -> None:
    """What is no question of notation is as Jinja2 and Python have it."""
    assert rendered(source, **values) == due


# ---------------------------------------------------------------- null is nothing

NEED_MORE = {
    "attr": "'a'",
    "batch": "2",
    "groupby": "'a'",
    "map": "'upper'",
    "rejectattr": "'a'",
    "replace": "'a', 'b'",
    "selectattr": "'a'",
    "slice": "2",
}
SAY_SOMETHING = {"count": "0", "length": "0", "tojson": "null", "wordcount": "0"}
NAMES = sorted(name for name in filters() if re.fullmatch(r"\w+", name))


@pytest.mark.parametrize("name", NAMES)
def test_null_is_nothing_through_every_filter(name: str) -> None:
    """A null cell prints nothing through any filter, but for JSON and for counts, which are 0."""
    arguments = f"({NEED_MORE[name]})" if name in NEED_MORE else ""
    found = rendered(f"[{{{{ x|{name}{arguments} }}}}]", x=None)
    assert found.replace(" ", "") == f"[{SAY_SOMETHING.get(name, '')}]"  # |center puts spaces around nothing


@settings(max_examples=200)
@given(chain=st.lists(st.sampled_from([name for name in NAMES if name not in SAY_SOMETHING]), min_size=1, max_size=4))
def test_null_is_nothing_through_filters_one_after_the_other(chain: list[str]) -> None:
    """No word for nothing comes up on the way, in any order; at worst the row fails and is not sent."""
    expression = "|".join(name + (f"({NEED_MORE[name]})" if name in NEED_MORE else "") for name in chain)
    found = compile_prompt([("user", f"{{{{ x|{expression} }}}}")]).render({"x": None})
    assert isinstance(found, Failure) or not re.search("none|null|undefined", found[0].text, re.IGNORECASE)


@pytest.mark.parametrize(
    ("source", "due"),
    [
        ("{{ 'Note: ' ~ x ~ '.' }}", "Note: ."),
        ("{{ 'Note: ' + x }}{{ x + '.' }}", "Note: ."),
        ("{{ ['a', x, 'b']|join('-') }}", "a--b"),
        ("{{ ['a', 'b']|join(x) }}", "ab"),
        ("{{ 'a'|replace('a', x) }}", ""),
        ("{{ '[%s]' % x }}{{ '[%5s]'|format(x) }}{{ '[{:>3}]'.format(x) }}", "[][     ][   ]"),
        ("{% for each in x %}{{ each }}{% else %}none{% endfor %}", "none"),
        ("{% for each in x|sort|unique %}{{ each }}{% endfor %}", ""),
        ("{{ x|int(5) }}{{ x|float(default=2.5) }}{{ x|int(default=1, base=8) }}", "52.51"),
        ("{{ x|default('d') }}{{ x|default('') }}{{ none|d(1) }}", "d1"),
        ("{{ {'a': x} }}{{ [x] }}{{ row|tojson }}", '{"a":null}[null]{"x":null}'),
        ("{{ row.get('gone')|upper }}{{ none|title }}", ""),
        ("{% set y = x %}{{ y|trim ~ y }}", ""),
    ],
)
def test_null_is_nothing_in_every_place(source: str, due: str) -> None:
    """Through `~`, `+`, `%`, `format`, `join` and loops; in JSON it is null."""
    assert rendered(source, x=None) == due


def test_a_method_takes_no_numbers_beyond_all_bounds() -> None:
    """A method that pads is bounded as the filter is."""
    assert "too wide" in failure("{{ x.rjust(10000000) }}", x="a")

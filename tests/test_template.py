import hashlib
import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.prompt import bounds
from cometbatch.prompt import template as template_file
from cometbatch.prompt.template import MAX_FAILURE_CHARACTERS, RENDERING, PromptTemplate, TemplateError, compile_prompt
from cometbatch.records import Failure, Message, Role

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def compiled(*sources: str) -> PromptTemplate:
    """A prompt of user messages."""
    roles: list[Role] = ["user"] * len(sources)
    return compile_prompt(list(zip(roles, sources, strict=True)))


def rendered(source: str, **values: object) -> str:
    """The text that a template gives for a row that it can be rendered for."""
    messages = compiled(source).render(values)
    assert isinstance(messages, tuple), messages
    return messages[0].text


def failure(source: str, **values: object) -> Failure:
    """What went wrong with a row."""
    found = compiled(source).render(values)
    assert isinstance(found, Failure)
    return found


def refused(source: str) -> TemplateError:
    """Why a template can't be used."""
    with pytest.raises(TemplateError) as caught:
        compiled(source)
    return caught.value


def test_a_prompt_has_its_roles_and_texts() -> None:
    """Messages keep their order and role, whether or not they differ from row to row."""
    template = compile_prompt([("system", "Be brief."), ("user", "Sum up: {{ body }}")])
    wanted = (Message.of_text("system", "Be brief."), Message.of_text("user", "Sum up: a b"))
    assert template.render({"body": "a b"}) == wanted


@pytest.mark.parametrize(
    ("source", "values", "wanted"),
    [
        ("no template at all\n", {}, "no template at all\n"),
        ("{{ x }}", {"x": None}, ""),
        ("{{ x|trim }}-", {"x": " a "}, "a-"),
        ("{{ x|fromjson }} {{ y|fromjson }}", {"x": 5, "y": b"[1]"}, "5 [1]"),  # a value already; text as bytes
        ("{{ x is none }}", {"x": None}, "true"),
        ("{{ x }}", {"x": Decimal("1.10")}, "1.10"),
        ("{{ x }}", {"x": True}, "true"),
        ("{{ x }}", {"x": [1, None]}, "[1,null]"),
        ("{{ x }}", {"x": NOON}, "2026-05-04 12:00:00+00:00"),
        ("{{ x.year }}/{{ x.timestamp()|int }}", {"x": NOON}, "2026/1777896000"),
        ("{{ x }}", {"x": "<b>&"}, "<b>&"),
        ("{{ x }}", {"x": "{{ 7*7 }}{% if %}"}, "{{ 7*7 }}{% if %}"),
        ("{{ x|upper }}", {"x": "{{ 7*7 }}"}, "{{ 7*7 }}"),
        ('{{ row["order id"] }}/{{ row.items }}', {"order id": 5, "items": "i"}, "5/i"),
        ("{{ row.a }}", {"a": 1, "b": 2}, "1"),
        ("{% for name in row %}{{ name }},{% endfor %}", {"a": 1, "b": 2}, "a,b,"),
        ("{{ row.get('a') }}", {"a": 1}, "1"),
        ("{{ row|tojson }}", {"a": "é<", "b": None, "c": Decimal("0.10")}, '{"a":"é<","b":null,"c":"0.10"}'),
        ("{{ x|tojson(indent=1) }}", {"x": {"z": date(2026, 1, 2)}}, '{\n "z": "2026-01-02"\n}'),
        ("{{ x|tojson }}", {"x": [math.nan, math.inf]}, "[null,null]"),
        ("{{ x|map('upper') }}", {"x": ["a"]}, '["A"]'),
        ("{{ x|reverse }}{{ x|unique|join }}", {"x": [1, 2]}, "[2,1]12"),
        ("{{ x|selectattr('a')|map(attribute='a')|join(', ') }}", {"x": [{"a": 1}, {"a": 0}, {"a": 2}]}, "1, 2"),
        ("{{ range }} {{ dict }}", {"range": 3, "dict": 4}, "3 4"),
        ("{% for i in range(3) %}{{ loop.index }}{% endfor %}", {}, "123"),
        ("{% set n = namespace(k=0) %}{% for i in x %}{% set n.k = i %}{% endfor %}{{ n.k }}", {"x": [1, 2]}, "2"),
        ("{% for row in rows %}{{ row.x }}{% endfor %}", {"rows": [{"x": 1}]}, "1"),
        ("{% macro m(a) %}<{{ a }}>{% endmacro %}{{ m(x) }}", {"x": 1}, "<1>"),
        ("{{ '%s!'|format(x) }}{{ '{}?'.format(x) }}", {"x": 1}, "1!1?"),
        ("{% raw %}{{ x }}{% endraw %}", {}, "{{ x }}"),
        ("{{ x }}", {"x": "a\ud800b"}, "a\ufffdb"),
        ("é\udfff", {}, "é\ufffd"),
        ("{{ x|lower }}", {"x": "\udc00"}, "\ufffd"),
    ],
)  # fmt: skip
def test_what_is_printed(source: str, values: Mapping[str, object], wanted: str) -> None:
    """Values print in one form each, null as nothing; no cell is rendered, escaped or changed."""
    assert rendered(source, **values) == wanted


@pytest.mark.parametrize(
    ("source", "values", "words"),
    [
        ("{{ 1 / x }}", {"x": 0}, "ZeroDivisionError: division by zero"),
        ("{{ x + 'a' }}", {"x": 0}, "TypeError"),
        ("a\n\n{{ x.nope }}", {"x": 0}, "template line 3: 'int object' has no attribute 'nope'"),
        ("{{ x }}", {}, "'x' is undefined"),
        ("{{ row.x }}", {}, "has no attribute 'x'"),
        ("{{ x.__class__ }}", {"x": 0}, "unsafe"),
        ("{{ x.append(1) }}", {"x": []}, "unsafe"),
        ("{{ ''.format.__globals__ }}", {}, "has no attribute '__globals__'"),
        ("{{ x.strip._method }}", {"x": ""}, "unsafe"),
        ("{{ '{0.__class__}'.format(x) }}", {"x": 0}, "unsafe"),
        ("{{ x['__class__'] }}", {"x": 0}, "unsafe"),
        ("{{ x.now() }}", {"x": NOON}, "unsafe"),
        ("{{ x.today() }}", {"x": date(2026, 1, 1)}, "unsafe"),
        ("{{ x.astimezone() }}", {"x": NOON}, "unsafe"),
        ("{{ x.timestamp() }}", {"x": NOON.replace(tzinfo=None)}, "unsafe"),
        ("{% for i in range(x) %}{% endfor %}", {"x": 10**9}, "Range too big"),
        ("{{ x * 10**17 }}", {"x": "a"}, "too long"),
        ("{% macro m(a) %}{{ m(a) }}{% endmacro %}{{ m(x) }}", {"x": 1}, "RecursionError"),
        ("{{ x }}", {"x": 10**5000}, "ValueError: Exceeds the limit"),
        ("{{ x|tojson }}", {"x": {(1, 2): 3}}, "TypeError"),
        ("{{ x.strip }}", {"x": "a"}, "'strip' is a method, not a value: call it, as in .strip()"),
        ("{{ 'a' ~ x['strip'] }}", {"x": "a"}, "'strip' is a method"),
        ("{{ [x.strip] }}", {"x": "a"}, "'strip' is a method"),
        ("{{ x.items() }}", {"x": {}}, "not a value that can be printed: try |list"),
        ("{{ self }}{% block a %}{% endblock %}", {}, "not a value that can be printed"),
        ("{{ namespace() }}", {}, "'Namespace' is not a value"),
        ("{% if x %}{{ x|nope }}{% endif %}", {"x": 1}, "No filter named 'nope'"),
        ("{{ x|fromjson }}", {"x": "{a}"}, "fromjson: '{a}' is no JSON (JSON is malformed"),
        ("{{ x|fromjson }}", {"x": " "}, "fromjson: ' ' is no JSON (the text is empty)"),
        ("{{ x|fromjson }}", {"x": b"a"}, "fromjson: 'a' is no JSON"),
        ("{{ x|fromjson }}", {"x": '"\ud800"'}, "is no JSON (half of a surrogate pair)"),
        ("{{ x|fromjson }}", {"x": "[" * 100_000}, "…' is no JSON (lists and objects are nested too deeply)"),
    ],
)
def test_whatever_goes_wrong_in_a_row_is_its_failure(source: str, values: Mapping[str, object], words: str) -> None:
    """Rendering is total: errors of template, sandbox and Python come back as a value that says where and why."""
    found = failure(source, **values)
    assert found.kind == "template"
    assert found.message.startswith("prompt message 1 (user)")
    assert words in found.message


def test_a_failure_message_is_bounded_and_can_be_stored() -> None:
    """However long or odd the cause, the message is short and encodable."""
    found = failure("{{ x[y] }}", x={}, y="\ud800" * 10_000)
    assert len(found.message) == MAX_FAILURE_CHARACTERS
    assert found.message.encode()


def test_the_failing_message_is_named() -> None:
    """Of several messages, the failure names the one that could not be rendered, by place and role."""
    template = compile_prompt([("system", "ok"), ("assistant", "\n{{ 1 / x }}")])
    found = template.render({"x": 0})
    assert isinstance(found, Failure)
    assert found.message.startswith("prompt message 2 (assistant), template line 2:")


def test_the_failing_message_is_named_among_several_that_differ_from_row_to_row() -> None:
    """The others were rendered well."""
    template = compile_prompt([("user", "{{ a }}"), ("assistant", "{{ b.foo }}"), ("user", "{{ a }}")])
    found = template.render({"a": 1, "b": {}})
    assert isinstance(found, Failure)
    assert found.message.startswith("prompt message 2 (assistant), template line 1:")


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.text()
    | st.text(st.characters(categories=["Cs", "L"]))
    | st.datetimes(timezones=st.just(UTC) | st.none())
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.binary()
    | st.just(10).map(lambda ten: ten**5000)
    | st.just(object)
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@settings(max_examples=100)
@given(value=VALUES, before=st.text("ab {}\n", max_size=5).filter(lambda text: "{" not in text))
def test_the_short_way_gives_what_jinja_gives(value: object, before: str) -> None:
    """A template of plain text and columns alone prints, and fails, exactly as the same template through Jinja2."""
    short = compiled(before + "{{ x }}.")
    through_jinja = compiled(before + "{{ x }}.{% if false %}{% endif %}")
    assert short.render({"x": value}) == through_jinja.render({"x": value})


@settings(max_examples=100)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_text_without_braces_is_sent_as_it_is(text: str) -> None:
    """A prompt that asks for no column keeps every character, but that line breaks become plain ones."""
    plain = text.replace("{", "(")
    assert rendered(plain) == re.sub(r"\r\n|\r|\n", "\n", plain)


@settings(max_examples=100)
@given(value=VALUES)
def test_rendering_never_raises_and_repeats(value: object) -> None:
    """Any value under common filters gives a prompt or a failure, the same one twice, that UTF-8 can carry."""
    template = compiled("{{ x }}|{{ x|string|trim }}", "{{ x|tojson }}", "{{ x|length }}")
    first = template.render({"x": value})
    assert first == template.render({"x": value})
    texts = [first.message] if isinstance(first, Failure) else [message.text for message in first]
    assert all(text.encode() is not None for text in texts)


@settings(max_examples=50)
@given(row=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.text('aé"\\\n<'), max_size=4))
def test_tojson_is_json(row: dict[str, str]) -> None:
    """`row|tojson` reads back as the row, in the order of its columns."""
    assert list(json.loads(rendered("{{ row|tojson }}", **row)).items()) == list(row.items())


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 10**10 }}",
        "{{ 10**10 * 'x' }}",
        "{{ x * 10**10 }}",
        "{{ ([0] * 10**9)|length }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ '%*d' % (10**10, 1) }}",
        "{{ '%10000000000d'|format(1) }}",
        "{{ '{:10000000000}'.format(1) }}",
        "{{ x.center(10**10) }}",
        "{{ x['ljust'](10**10) }}",
        "{{ x.rjust(width) }}",
        "{{ x.zfill(10**10) }}",
        "{{ x|center(10**10) }}",
        "{{ x|indent(width=10**10, first=true) }}",
        "{{ [x]|tojson(10**10) }}",
        "{{ [x]|batch(10**10, 0) }}",
        "{{ [x]|slice(10**10) }}",
        "{{ 10**(10**10) }}",
        "{% set y = x * 60000000 %}{{ y }}{{ y }}",
        "{% set y %}{% for i in range(9) %}{{ x * 10000000 }}{% endfor %}{% endset %}{{ y }}",
        "{% set y = x * 60000000 %}{{ (y + y)|length }}",
        "{% set y = [x] * 600000 %}{{ (y + y)|length }}",
        "{% for i in range(9) %}{{ x * 10000000 }}{% endfor %}",
    ],
)
def test_a_small_template_does_not_take_all_memory(source: str) -> None:
    """What repeats, pads or piles up beyond any message is the row's failure, before the memory is taken."""
    found = failure(source, x="a", width=10**10)
    assert "too " in found.message


def test_columns_that_are_too_long_together_fail_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message has its bound however it is put together, and the failure says so."""
    for module in (bounds, template_file):
        monkeypatch.setattr(module, "MAX_MESSAGE_CHARACTERS", 10)
    assert rendered("{{ x }}{{ y }}", x="a" * 5, y="b" * 5) == "aaaaabbbbb"
    assert "too long" in failure("{{ x }}{{ y }}", x="a" * 5, y="b" * 6).message


def test_repeats_and_padding_of_a_usual_size_work() -> None:
    """The bounds are far from what anyone means."""
    assert rendered("{{ '=' * 20 }}{{ x.center(5) }}{{ '%5.1f' % 2 }}{{ 2**10 }}{{ 'a' + 'b' }}", x="a") == (
        "=" * 20 + "  a  " + "  2.01024ab"
    )
    assert rendered("{{ x|center(5) }}{{ '%s: 12345678'|format(x) }}{{ 12345678|round }}", x="a") == (
        "  a  a: 1234567812345678"
    )
    assert len(rendered("{{ x * 1000000 }}", x="ab")) == 2_000_000


@pytest.mark.parametrize(
    ("source", "needed", "needs_all"),
    [
        ("plain", set(), False),
        ("{{ a }} {{ b|upper }}", {"a", "b"}, False),
        ("{% if a %}{{ b }}{% endif %}", {"a", "b"}, False),
        ("{% set a = b %}{{ a }}", {"b"}, False),
        ("{% for a in b %}{{ a }}{{ loop.index }}{% endfor %}", {"b"}, False),
        ('{{ row["order id"] }}{{ row.c }}', {"order id", "c"}, False),
        ("{{ row|tojson }}", set(), True),
        ("{{ row[a] }}{{ row.b }}", {"a", "b"}, True),
        ("{{ row[0] }}", set(), True),
        ("{{ row.get('a') }}", set(), True),
        ("{% for row in rows %}{{ row.x }}{% endfor %}", {"rows"}, False),
        ("{{ range(2) }}{{ dict(a=b) }}{{ namespace() }}", {"b"}, False),
        ("{{ range }}", {"range"}, False),
        ("{{ lipsum() }}", {"lipsum"}, False),
    ],
)
def test_which_columns_are_needed(source: str, needed: set[str], needs_all: bool) -> None:
    """The columns that a template takes are known from its text alone."""
    template = compiled(source)
    assert template.columns_needed == needed
    assert template.needs_all_columns is needs_all


def test_needed_columns_are_enough() -> None:
    """A prompt made from the needed columns alone is that made from the whole row."""
    template = compiled("{{ a }} {{ row['b c'] }} {{ d|trim }}")
    row = {"a": 1, "b c": 2, "d": 3, "e": 4}
    assert template.render({name: row[name] for name in template.columns_needed}) == template.render(row)


def test_a_table_with_every_column_passes_the_check() -> None:
    """Nothing is wrong with a table that has more than is needed."""
    compiled("{{ a }}", "{{ row['b c'] }}", "{{ row }}").check(["x", "b c", "a"])


def test_missing_columns_are_named_with_the_nearest() -> None:
    """The check names message, line, every missing column, the nearest one and those that there are."""
    with pytest.raises(TemplateError) as caught:
        compiled("{{ body }}", "{{ body }}\n{{ bdy }}\n{{ row.zz }}").check(["body", "id"])
    assert str(caught.value) == (
        "prompt message 2 (user), template line 2: no column 'bdy' in the input, did you mean 'body'?; "
        "no column 'zz' in the input (the columns are 'body', 'id')"
    )
    assert (caught.value.index, caught.value.role, caught.value.line) == (1, "user", 2)


def test_a_wide_table_is_not_listed_whole() -> None:
    """The message stays readable for a table of a thousand columns."""
    with pytest.raises(TemplateError, match="and 970 more"):
        compiled("{{ zz }}").check([f"column{number}" for number in range(1000)])


@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        ("{{ a b }}", 1, "row[\"its name\"]"),
        ("x\n{{ a", 2, "{% raw %}"),
        ("{% nope %}", 1, "unknown tag 'nope'"),
        ("{{ a|uper }}", 1, "No filter named 'uper' (did you mean 'upper'?)"),
        ("{{ a|zzzz }}", 1, "No filter named 'zzzz'"),
        ("{{ a is evenn }}", 1, "did you mean 'even'?"),
        ("{{ a|random }}", 1, "nothing random"),
        ("\n{% include 'a' %}", 2, "no other template for {% include %} (a prompt is one template"),
        ("{% import 'a' as b %}", 1, "no other template for {% import %}"),
        ("{% from 'a' import b %}", 1, "no other template for {% import %}"),
        ("{% extends 'a' %}", 1, "no other template for {% extends %}"),
        ("{% for row in rows %}{% endfor %}\n{{ row.a }}", 1, "'row' is the whole row: give this"),
        ("{{ range(3) }}\n{{ range }}", 2, 'reach the column as row["range"]'),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", None, "can't be compiled: RecursionError"),
        ("{{ " + "1" * 5000 + " }}", None, "can't be compiled: ValueError"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_used_is_refused(source: str, line: int | None, words: str) -> None:
    """Syntax errors and whatever is out of reach are found when compiling, with line, reason and hint."""
    error = refused(source)
    assert words in str(error)
    assert (error.index, error.role, error.line) == (0, "user", line)


@pytest.mark.parametrize("name", ["lipsum", "cycler", "joiner", "now"])
def test_nothing_random_or_timed_is_at_hand(name: str) -> None:
    """Functions whose results differ from call to call, or print as an address, are not there at all."""
    assert f"{name!r} is undefined" in failure("{{ " + name + "() }}").message


RENDERED_BY = {
    1: "9ccce1824658f413379a6e87f5ad7dd3b54bf77e5e23bc3267f6ba477707d697",
    2: "32713b38f2f8953e0438b4b69e0cadccd9f8b13f44fa2e57bdfa13482e93989c",
}
"""A digest of what each number of the rendering rules makes of the row below."""


def test_other_rules_of_rendering_have_another_number() -> None:
    """Whoever changes what a row becomes raises `RENDERING`, and adds the new digest here."""
    row = {
        "text": "é {{ x }} <b>&\r\n", "none": None, "yes": True, "number": 1.5, "large": 10**20,
        "exact": Decimal("1.10"), "day": date(2026, 1, 2), "moment": NOON,
        "hour": time(1, 2), "span": timedelta(hours=1), "raw": b"\x00a",
        "list": [1, None, "a", [True]], "struct": {"z": 1.0, "a": None},
    }  # fmt: skip
    sources = [f"\n{name}: {{{{ {name} }}}}|{{{{ {name}|string|trim }}}}|{{{{ {name}|tojson }}}}\n" for name in row]
    sources += [
        "{{ row|tojson }}",
        "{% for name in row %}{{ loop.index }}{{ name }} {% endfor %}",
        "{{ struct.a }}\r\n",
    ]
    sources += ["{{ list|join('-') }} {{ list|map('string') }} {{ number|round }} {{ moment.timestamp() }}"]
    messages = compiled(*sources).render(row)
    assert isinstance(messages, tuple)
    assert hashlib.sha256("\0".join(each.text for each in messages).encode()).hexdigest() == RENDERED_BY[RENDERING]


def test_times_of_day_and_spans_print() -> None:
    """Times of day and time spans print like any other value."""
    assert rendered("{{ x }} {{ y }}", x=time(1, 2), y=timedelta(hours=1)) == "01:02:00 1:00:00"

"""Each name is its own column, however it is spelt; what looks like one and reaches none is refused with the way."""

import unicodedata

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cometbatch.prompt import names
from cometbatch.prompt.names import shown_columns, typed_expression, written_columns
from cometbatch.prompt.template import TemplateError, compile_prompt
from cometbatch.records import Failure

ANGSTROM, RING = "Å", "\u212b"  # the letter, and the sign of the unit, which Python takes for the same
LIGATURE, DOUBLE = "o\ufb03ce", "office"
ITALIC = "\U0001d465"  # a mathematical x


def rendered(source: str, **values: object) -> str:
    """The text that a template gives, once it has been checked against the columns."""
    template = compile_prompt([("user", source)])
    template.check(list(values))
    needed = values if template.needs_all_columns else {name: values[name] for name in template.columns_needed}
    messages = template.render(needed)
    assert isinstance(messages, tuple), messages
    return messages[0].text


def refused(source: str, *columns: str) -> str:
    """Why a template does not fit these columns."""
    with pytest.raises(TemplateError) as caught:
        compile_prompt([("user", source)]).check(columns)
    return str(caught.value)


# ---------------------------------------------------------------- names that Python folds

FRAMES = [
    "{{ ONE }}/{{ TWO }}",
    "{% if true %}{{ ONE }}/{{ TWO }}{% endif %}",
    "{{ ONE|string }}/{{ TWO|string }}",
    "{{ ONE ~ '/' ~ TWO }}",
    "{{ row.ONE }}/{{ row['TWO'] }}",
    "{% for ONE in [ONE] %}{{ ONE }}{% endfor %}/{{ TWO }}",
    "{% set TWO = TWO %}{{ ONE }}/{{ TWO }}",
    "{% macro m(ONE) %}{{ ONE }}{% endmacro %}{{ m(ONE) }}/{{ TWO }}",
    "{% macro ONE(x) %}{{ x }}/{% endmacro %}{{ ONE('1') }}{{ TWO }}",
    "{% set n = namespace() %}{% set n.ONE = ONE %}{% set n.TWO = TWO %}{{ n.ONE }}/{{ n.TWO }}",
    "{% set ONE = namespace(a='1') %}{% set ONE.a = '1' %}{{ ONE.a }}/{{ TWO }}",
    "{% block ONE %}{{ ONE }}{% endblock %}/{% block TWO %}{{ TWO }}{% endblock %}",
]


@pytest.mark.parametrize(
    "pair", [(ANGSTROM, RING), (LIGATURE, DOUBLE), ("x", ITALIC), ("é", "e\u0301"), ("Kelvin", "\u212aelvin")]
)
@pytest.mark.parametrize("frame", FRAMES)
def test_names_that_python_folds_are_two_columns(frame: str, pair: tuple[str, str]) -> None:
    """Printed, filtered, set, looped over or handed to a macro: each spelling is its own."""
    for one, two in (pair, pair[::-1]):
        source = frame.replace("ONE", one).replace("TWO", two)
        assert rendered(source, **{one: "1", two: "2"}) == "1/2"


identifiers = st.text(st.characters(categories=["L", "Nd", "Mn", "Pc"]), min_size=1, max_size=5).filter(
    lambda name: (
        name.isidentifier()
        and name.lower() not in {"none", "true", "false", "not", "and", "or", "if", "is", "in", "else", "loop"}
    )
)


@settings(max_examples=200, deadline=None)
@given(
    chosen=st.lists(identifiers, min_size=1, max_size=3, unique=True),
    frame=st.sampled_from(["{{ X }}", "{{ X|string }}"]),
)
def test_any_name_reaches_its_own_column(chosen: list[str], frame: str) -> None:
    """Whatever letters: a column, its composed and decomposed forms, and what Python makes of it are all apart."""
    forms = [unicodedata.normalize(form, name) for name in chosen for form in ("NFC", "NFD", "NFKC", "NFKD")]
    columns = list(dict.fromkeys([*chosen, *(form for form in forms if form.isidentifier())]))
    assume("row" not in columns)
    values = {name: f"<{number}>" for number, name in enumerate(columns)}
    source = "".join(frame.replace("X", name) for name in columns)
    try:
        assert rendered(source, **values) == "".join(values.values())
    except TemplateError as error:
        assert "unknown" in str(error) or "unexpected" in str(error) or "expected token" in str(error)  # noqa: PT017 - not a name for Jinja2


def test_a_name_like_an_alias_is_its_own_column_too() -> None:
    """Whatever this program calls a folded name, a column may be called so."""
    alias = "column_" + RING.encode().hex()
    source = "{{ ALIAS }}/{{ RING }}/{{ LETTER }}|{% if true %}{{ ALIAS }}{% endif %}"
    for word, name in (("ALIAS", alias), ("RING", RING), ("LETTER", ANGSTROM)):
        source = source.replace(word, name)
    assert rendered(source, **{alias: "a", RING: "b", ANGSTROM: "c"}) == "a/b/c|a"


def test_a_folded_argument_is_refused() -> None:
    """An argument's name can't be kept apart, so it is not taken for another."""
    with pytest.raises(TemplateError, match="'oﬃce' can't name an argument: write 'office'"):
        compile_prompt([("user", "{{ dict(oﬃce=1) }}")])


def test_a_failure_names_what_the_template_names() -> None:
    """Nobody has to know that a name has an alias."""
    source = "{% if x %}{% set " + RING + " = 1 %}{% endif %}{{ " + RING + ".a }}{% set " + RING + " = 2 %}"
    found = compile_prompt([("user", source)]).render({"x": 0, RING: None})
    assert isinstance(found, Failure)
    assert "column_" not in found.message


# ---------------------------------------------------------------- names that mean something else


@pytest.mark.parametrize(
    ("source", "values", "due"),
    [
        ("{{ x.items }}|{{ x.keys }}|{{ x['values'] }}", {"x": {"items": 1, "keys": None, "values": 3}}, "1||3"),
        ("{{ x.get.pop }}", {"x": {"get": {"pop": "p"}}}, "p"),
        ("{{ x|map(attribute='items')|join }}", {"x": [{"items": 1}, {"items": 2}]}, "12"),
        ("{{ x|attr('items') }}", {"x": {"items": 1}}, "1"),
        ("{% for key, value in x.items() %}{{ key }}{{ value }}{% endfor %}", {"x": {"a": 1}}, "a1"),
        ("{{ row.items }}{{ row.format }}", {"items": 1, "format": 2}, "12"),
        ("{{ self }}{% if true %}{{ self }}{% endif %}", {"self": "s"}, "ss"),
        ("{{ caller }}{{ varargs }}{{ super }}", {"caller": 1, "varargs": 2, "super": 3}, "123"),
        ('{{ row["user.name"] }}{{ row["order-id"] }}', {"user.name": 1, "order-id": 2}, "12"),
        ('{{ row["2024"] }}{{ row["none"] }}{{ row["a\\"b\\\\"] }}', {"2024": 1, "none": 2, 'a"b\\': 3}, "123"),
        ("{{ user . name }}", {"user": {"name": 1}, "user.name": 2}, "1"),
        ("{{ order - id }}", {"order": 5, "id": 3, "order-id": 0}, "2"),
        ("{{ x + 1 }}{% if x == 7 %}{% endif %}{{ [1][0] }}", {"x": 1.0, "1": 0, "7": 0}, "2.01"),
        ("{{ x|round(2) }}", {"x": 1.0, "2": 0}, "1.0"),
        ("{{ 'text' ~ x }}{{ 1 if x else 0 }}", {"x": 1, "text": 2, "0": 3}, "text11"),
    ],
)  # fmt: skip
def test_names_of_methods_and_of_nothing_else_are_columns_and_fields(
    source: str, values: dict[str, object], due: str
) -> None:
    """A field hides a method of its name; constants and signs that are meant as such stay what they are."""
    assert rendered(source, **values) == due


@pytest.mark.parametrize(
    ("source", "columns", "words"),
    [
        ("{{ 2024 }}", ["2024"], 'this does not reach the column \'2024\': write row["2024"]'),
        ("\n{{ a }}{{ none }}", ["a", "none"], 'line 2: this does not reach the column \'none\': write row["none"]'),
        ("{{ None|upper }}", ["none"], 'row["none"]'),
        ("{{ true }}", ["TRUE"], 'row["TRUE"]'),
        ("{{ 1.10 }}", ["1.10"], 'row["1.10"]'),
        ("{{ 1e3 }}", ["1000.0"], 'row["1000.0"]'),
        ("{{ -5 }}", ["-5"], 'row["-5"]'),
        ("{{ 0 ~ x }}", ["0", "x"], 'row["0"]'),
        ("{% if 7 %}a{% endif %}", ["7"], 'row["7"]'),
        ("{% for y in 7 %}a{% endfor %}", ["7"], 'row["7"]'),
        ("{{ 7|default('a') }}", ["7"], 'row["7"]'),
        ("{{ 7 is odd }}", ["7"], 'row["7"]'),
        ("{{ 'order id' }}", ["order id"], 'row["order id"]'),
        ("{{ user.name }}", ["user.name"], 'write row["user.name"]'),
        ("{{ user.name }}", ["user", "user.name"], "put spaces around the sign"),
        ("{{ order-id }}", ["order-id", "order", "id"], 'row["order-id"]'),
        ("{% if order-id %}x{% endif %}", ["order-id"], 'row["order-id"]'),
        ("{{ row.order-id }}", ["order-id"], 'row["order-id"]'),
        ("{{ row[2024] }}", ["2024"], 'row["2024"]'),
        ("{{ a/b }}", ["a/b"], 'row["a/b"]'),
        ("{{ price (EUR) }}", ["price (EUR)"], 'row["price (EUR)"]'),
        ("{{ a*b }}", ["a*b", "x"], 'row["a*b"]'),
        ("{{ größe-1|trim }}", ["größe-1"], 'row["größe-1"]'),
        ("{{ order id }}", ["order id"], 'here row["order id"]'),
        ("{{ a }} {{ order id }} {{ b }}", ["a", "b", "order id"], 'here row["order id"]'),
        ("{{ a }}\n{{- order id -}}\n{{ b }}", ["a", "b", "order id"], 'here row["order id"]'),
        ("{{ a }}{% if order id %}{% endif %}", ["a", "order id"], 'is row["its name"]'),
        ("a\n{{ 02 }}", ["02"], 'here row["02"]'),
        ("{{ größe in % }}", ["größe in %"], 'here row["größe in %"]'),
        ("{{ row }}", ["row", "x"], 'write row["row"] (if the whole row is meant: write row|tojson)'),
        ("{{ x }}{{ row|trim|upper }}", ["row", "x"], 'write row["row"]'),
        ("{{ 'No. ' ~ row }}", ["row"], 'write row["row"]'),
        ("{% if row %}{{ x }}{% endif %}", ["row", "x"], 'write row["row"]'),
        ("{% for cell in row %}{{ cell }}{% endfor %}", ["row"], 'write row["row"]'),
        ("{{ text }}", ["", "x"], "no column 'text' in the input"),
        ("{{ text }}", ["text "], 'write row["text "] (its name begins or ends with a blank)'),
        ("{{ a - text }}", ["-", " ", "a"], "no column 'text' in the input"),
    ],
)  # fmt: skip
def test_what_looks_like_a_column_and_is_none_is_refused(source: str, columns: list[str], words: str) -> None:
    """A number, a word for nothing, a sum, a field: where that is a column's name, the way to it is named."""
    assert words in refused(source, *columns)


@pytest.mark.parametrize(
    ("source", "columns"),
    [
        ("{{ 'a.b' }}{{ x }}", ["a.b.c", "x"]),
        ("{{ x['a-b'] }}{{ x[0] }}{{ row['0'] }}", ["x", "a-b", "0"]),
        ("{{ x.a.b }}", ["x", "a.b"]),
        ("{{ x }}{% raw %}{{ a-b }}{% endraw %} a-b", ["x", "a-b"]),
        ("{# a-b 2024 #}{{ x }}", ["x", "a-b", "2024"]),
        ("{{ [2024, none] }}{{ x|round(2) }}", ["x", "2024", "none", "2"]),
        ("{% filter upper %}a{% endfilter %}{{ x }}", ["x", "a"]),
        ("{{ 2 }}{{ 2.0 }}{{ x }}", ["x", "2.00.0", "two", "02"]),
        ("{{ row }}{{ row|upper }}", ["x"]),
        ("{{ row|tojson }}{{ row|length }}{{ row|dictsort }}{{ row.x }}{{ row['row'] }}{{ row.row }}", ["x", "row"]),
    ],
)
def test_what_can_be_meant_is_not_refused(source: str, columns: list[str]) -> None:
    """Texts in quotes, fields of other things, plain text and comments name no column."""
    compile_prompt([("user", source)]).check(columns)


def test_a_hostile_template_is_refused_in_time() -> None:
    """Tens of thousands of open braces are looked at once."""
    with pytest.raises(TemplateError):
        compile_prompt([("user", "{{ a b " + "{{" * 100_000)])


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("name", "columns", "words"),
    [
        ("prénom", ["pre\u0301nom"], 'written in other Unicode characters: it is row["pre\\u0301nom"]'),
        ("ID", ["id"], "did you mean 'id'?"),
        ("id", ["x", "id "], "did you mean 'id '?"),
        ("id", ["\ufeffid"], "did you mean '\\ufeffid'?"),
        ("a\x1b[31m", ["b"], "no column 'a\\x1b[31m' in the input"),
        ("a" * 500, ["b"], f"no column '{'a' * 80}'… in the input"),
    ],
)
def test_a_missing_column_is_told_with_the_likely_one(name: str, columns: list[str], words: str) -> None:
    """Names are quoted and bounded, control characters shown, and what only looks the same is told apart."""
    found = names.no_column(name, columns)
    assert words in found
    assert found.isprintable()


def test_the_way_of_a_message_reaches_the_column() -> None:
    """What a message says to write works when it is written, whatever the name holds."""
    for name in ("order id", 'a"b', "a\\nb", "a\nb", "pre\u0301nom", "{{ x }}", "\u202eabc", "\U0001f600"):
        assert rendered(f"{{{{ {names.reach(name)} }}}}", **{name: "found"}) == "found"


def test_many_columns_are_not_listed_whole() -> None:
    """The message stays short for a table of thousands of columns, or of very long names."""
    assert names.shown_columns([f"c{number}" for number in range(5_000)]).endswith("'c29' and 4970 more")
    assert len(names.shown_columns(["x" * 10_000] * 5_000)) < 3_000


@pytest.mark.parametrize(
    ("source", "line", "typed"),
    [
        ("{{ order id }}", 1, "order id"),
        ("{{x y}}", 1, "x y"),
        ("a\n{{- order id -}}\n", 2, "order id"),
        ("{{ ok }}\n{{ order id }}", 2, "order id"),
        ("{{ ok }}\n{{ order id }}", 1, None),
        ("{{ order id }}\n{{ ok }}", 2, None),
        ("{{\n order id\n}}", 3, "order id"),
        ("{{ order id }", 1, None),
    ],
)
def test_what_was_typed_at_a_line_is_what_can_t_be_read_there(source: str, line: int, typed: str | None) -> None:
    """Without the braces and the signs of blanks; nothing where the line's braces are not at fault."""
    assert typed_expression(source, line) == typed


@pytest.mark.parametrize(
    ("source", "name", "is_written"),
    [("{{ 1.50 }}", "1.5", True), ("{{ 1.5 }}", "1.50", True), ("{{ 1.5 }}", "2.5", False), ("{{ 1.5 }}", "a", False)],
)
def test_a_number_is_a_columns_name_however_it_is_written(source: str, name: str, *, is_written: bool) -> None:
    """By its value, and by no other."""
    assert bool(list(written_columns(source, [name], all_signs=False))) == is_written


@pytest.mark.parametrize(("number", "ending"), [(30, "'c29'"), (31, "'c29' and 1 more"), (99, "'c29' and 69 more")])
def test_many_columns_are_named_in_part(number: int, ending: str) -> None:
    """The first, and the number of the others."""
    assert shown_columns([f"c{index}" for index in range(number)]).endswith(ending)

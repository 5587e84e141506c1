"""The JSON Schema of a job file says what the reading of a job says, for every job file of the tests."""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from cometbatch.errors import JobError
from cometbatch.job import job_keys, load_job
from cometbatch.job.engine_keys import RAY_KEYS
from cometbatch.job.json_schema import MEANINGS, job_schema
from cometbatch.job.key import Key
from cometbatch.job.keys import (
    ABOVE_KEYS,
    IMAGE_KEYS,
    KEYS,
    MESSAGE_KEYS,
    PART_KEYS,
    PRICE_KEYS,
    WORDS_FOR_SECTIONS,
    takes_text,
)
from cometbatch.job.sources import read_tree
from cometbatch.job.tree import List, Map, Node, Problems, WrongError
from tests.test_job import BAD_VALUES, FULL_TEXT, SMALL, SMALL_TEXT, merged, with_line

ROOT = Path(__file__).parent.parent
SCHEMA = job_schema()
VALIDATOR = jsonschema_rs.validator_for(SCHEMA)
NUMBER = re.compile(r"[-+]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4})?")

BETWEEN_KEYS = {
    "what a format has no place for": r": (prompt|params(\.columns\.\w+)?): (?!expected|unknown)",
    "two ways to write the messages": r"can't be there beside prompt\.messages",
    "a meaning with another key alone": r"has a meaning only with",
    "two kinds of prices": r"contradicts prices\.",
    "prices of nothing": r"there is no price in it",
    "a limit below one answer": r"would take more than an hour",
    "a key over an open line": r"would send the key and all texts without encryption",
    "the least and the most": r"found the larger one first",
    "one place of the key": r"contradicts target\.key_env",
    "one way to check answers": r"says nothing of what answers|contradicts response\.|is written by response",
    "what a format or a mode can't ask for": r": response\.(schema|mode|json|pattern): (?!expected|unknown)",
    "a comment in the place of a text": r"a # begins a comment in YAML",
}
"""What depends on several keys, in words of the reading."""
BEYOND_A_SCHEMA = {
    "a template's own language": r"(of|in) the template: ",
    "what looks like a key": r"looks like a key|keys do not belong|does not belong in a job file",
    "names that Python knows": r"expected the name of an encoding, such as",
    "the parts of a URL": r"expected the base URL alone|a name and password|expected a base URL alone"
    r"|expected a URL that starts|expected a URL such as .* found one that can't be read",
    "files and folders": r"output\.path: (?!expected a path,)|input\.path: expected the path of a file that ends in",
    "what is in another file": r"prompt\.few_shot: |(prompt\.user|target\.(format|model)): is missing",
    "marks that a shell replaces": r"nothing here replaces|found a \$ that begins no variable|systemd's %d",
    "YAML's own": r"YAML tags|the key is there twice|expected a word as key|expected a mapping to merge"
    r"|found half of a surrogate pair",
    "values of YAML that JSON has not, in params.extra": r": params\.extra: .*put it in quotes",
    "numbers written in an odd way": r"leading zero|it must be finite|that JSON can hold",
    "3.0, which JSON can't tell from 3, and which is no number of rows": r"to count rows",
}
"""What JSON Schema can't say, or YAML has and JSON has not."""
RULES = re.compile("|".join([*BETWEEN_KEYS.values(), *BEYOND_A_SCHEMA.values()]))


def as_json(node: Node) -> Any:
    """What a program that knows YAML makes of a tree. A date, and a value of Python's own, is none of JSON's kinds."""
    match node:
        case Map():
            return {_carried(key): as_json(value) for key, value in node.entries.items()}
        case List():
            return [as_json(item) for item in node.items]
    is_number = node.tag in ("int", "float") or (node.tag == "str" and node.plain)
    if is_number and NUMBER.fullmatch(digits := node.text.replace("_", "")):
        return int(digits) if re.fullmatch(r"[-+]?\d{1,30}", digits) else float(digits)
    known = {"null": None, "bool": node.text.lower() in ("true", "yes", "on"), "str": _carried(node.text)}
    return known.get(node.tag, {"none of JSON's kinds": node.tag})


def _carried(text: str) -> str:
    """A text that JSON can carry."""
    return text.encode("utf-8", "replace").decode()


def verdicts(source: str | Path | Mapping[str, Any]) -> tuple[str, str]:
    """What the reading and the schema have against a job; "" for nothing."""
    problems = Problems()
    tree = read_tree(Path(source) if isinstance(source, str) else source, (), problems, takes_text)
    found = VALIDATOR.iter_errors(as_json(tree))
    said = "\n".join(f"{'/'.join(map(str, error.instance_path))}: {error.message}" for error in found)
    try:
        load_job(source)
    except JobError as error:
        return str(error), said
    return "", said


def difference(source: str | Path | Mapping[str, Any]) -> str:
    """Where one takes the job and the other does not, but for the rules that are listed; "" where they agree."""
    reading, schema = verdicts(source)
    if reading and not schema:
        return "\n".join(f"only the reading refuses: {line}" for line in reading.splitlines() if not RULES.search(line))
    return f"only the schema refuses: {schema}" if schema and not reading else ""


def called() -> Iterator[tuple[str, dict[str, Any]]]:
    """The sections of every job that a test writes as a call: `small(limits={...})`, `bench.job(target={...})`."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.keywords or node.args:
                continue
            if not {keyword.arg for keyword in node.keywords} <= KEYS.keys():
                continue
            try:
                sections = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
            except ValueError:
                continue  # not all of it is written there
            yield f"{path.relative_to(ROOT)}:{node.lineno}", sections


def written() -> Iterator[tuple[str, str]]:
    """The text of every job file: those that ship, those of the pages, those that the tests have as files."""
    for path in [*ROOT.glob("jobs/*.yaml"), *ROOT.glob("tests/data/**/job.yaml")]:
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        blocks = re.findall(r"^```yaml\n(.*?)^```$", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        yield from ((f"{path.name} {number}", block) for number, block in enumerate(blocks))
    yield from [("small", SMALL_TEXT), ("full", FULL_TEXT)]
    yield from ((line, with_line(line)[0]) for line, _, _ in BAD_VALUES)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_reader_and_schema_agree_on_every_job_file_of_the_tests(here: Path) -> None:
    """Those that ship, those of the pages, and every one that is to be refused."""
    found = list(written())
    assert len(found) > 100
    differences = {}
    for name, text in found:
        (here / "job.yaml").write_text(text, encoding="utf-8")
        differences[name] = difference(here / "job.yaml")
    assert {name: words for name, words in differences.items() if words} == {}


def test_reader_and_schema_agree_on_every_job_that_a_test_calls_for(here: Path) -> None:
    """Each call with sections of a job as its arguments, in any test, is a job."""
    found = list(called())
    assert len(found) > 100
    differences = {place: difference(merged(SMALL, sections)) for place, sections in found}
    assert {place: words for place, words in differences.items() if words} == {}


TEXTS = (
    *(
        "",
        " ",
        "a",
        " a",
        "a ",
        "a b",
        "a\nb",
        "a\tb",
        "a\x00b",
        "é\u3000z",
        "x" * 65,
        "x" * 257,
        "x" * 4097,
        "3",
        "{{ body }}",
    ),
    *(
        "https://a.example",
        "s3://a/b.csv",
        "a.csv",
        ".csv",
        "d/.tsv",
        "d/a.Parquet",
        "a.txt",
        "simulator",
        "chat",
        "Chat",
    ),
    *("catalog", "utf-8", "A_KEY", "a-key", ";", ";;", "\\t", '"', "auto", "user"),
)
MAPPINGS: tuple[dict[str, Any], ...] = (
    *({}, {"a": 1}, {"a": 0.5}, {"a": "x"}, {"a": [0]}, {"role": "user", "content": "x"}, {"role": "user"}),
    *({"role": "u", "content": "x"}, {"role": "user", "content": "x", "a": 1}, {"role": None, "content": "x"}),
    *({"input_tokens": 5}, {"input_tokens": 5, "input": 1}, {"input": 1}, {"input_tokens": 0, "input": 1}),
    *({"input_tokens": 5, "input": 1, "a": 1}, {"input_tokens": 5, "output": "x"}, {"input_tokens": None, "input": 1}),
)
LISTS: tuple[list[Any], ...] = (
    *([], [[]], ["a"], ["a", ""], ["a"] * 16, ["a"] * 17, [0, 1], [1, 2, 3], [3601, 0.1], [None], [True]),
    *([each] for each in MAPPINGS),
)
VALUES = (None, True, False, 0, 1, 3.0, 0.5, -1, 2, 17, 1e12, *TEXTS, *LISTS, *MAPPINGS)


def bounds(schema: object) -> Iterator[float]:
    """Numbers at the bounds that a schema sets, and beside them."""
    if isinstance(schema, dict):
        for name, value in schema.items():
            if name in ("minimum", "exclusiveMinimum", "maximum"):
                yield from (value - 1, value, value + 1)
            elif isinstance(value, dict | list):
                yield from bounds(value)
    elif isinstance(schema, list):
        for each in schema:
            yield from bounds(each)


TABLES: dict[str, Mapping[str, Key]] = {
    **KEYS,
    "prompt.messages": MESSAGE_KEYS,
    "prompt.messages.content": PART_KEYS,
    "prompt.images": IMAGE_KEYS,
    "engine.ray": RAY_KEYS,
    "prices.above": ABOVE_KEYS,
    "prices.models": PRICE_KEYS,
    "prices.models.above": ABOVE_KEYS,
}


@pytest.mark.parametrize("table", TABLES)
def test_what_reads_a_key_and_its_schema_agree_on_each_value(table: str) -> None:
    """Texts, numbers at each bound, lists and mappings: one verdict."""
    differences = []
    for name, key in TABLES[table].items():
        validator = jsonschema_rs.validator_for(key.kind.schema)
        for value in (*VALUES, *bounds(key.kind.schema)):
            if f"{table}.{name}" in TABLES or value is None:
                continue  # these are read as parts of their section
            node = read_tree({name: value}, (), Problems(), takes_text).entries[name]
            try:
                key.kind.read(node)
                words = ""
            except WrongError as error:
                words = f": {table}.{name}: {error}"
            if validator.is_valid(as_json(node)) != (not words) and not RULES.search(words):
                differences.append((name, value, words))
    assert differences == []


def test_reader_and_schema_agree_on_each_section_and_what_is_left_out(here: Path) -> None:
    """Whatever stands in the place of a section, null under each key, an unknown key, lists of messages and prices."""
    values: tuple[object, ...] = (None, True, 3, "a", "none", [], {}, {"a": 1})
    jobs: list[tuple[str, object]] = [(section, value) for section in KEYS for value in values]
    for section, keys in KEYS.items():
        base = SMALL.get(section, {})
        jobs += [(section, base | {name: None}) for name in (*keys, "unknown")]
    jobs += [("prompt", {"messages": value}) for value in (None, *LISTS, *MAPPINGS, "a")]
    jobs += [("prompt", {"user": None, "messages": [{"role": "user", "content": "x"}], "system": None})]
    jobs += [("prices", {"above": value}) for value in (None, *LISTS, *MAPPINGS, 3)]
    jobs += [("prices", {"models": value}) for value in (None, *LISTS, *MAPPINGS, 3)]
    jobs += [("prices", {"models": {"m": value}}) for value in (None, *LISTS, *MAPPINGS, {"above": {"input": 1}}, 3)]
    found = [(section, value, difference(SMALL | {section: value})) for section, value in jobs]
    assert [each for each in found if each[2]] == []


def test_every_key_has_a_schema_its_meaning_and_its_default() -> None:
    """An editor shows of a key what the documentation does: made from the one table, so that none can be forgotten."""
    jsonschema_rs.meta.validate(SCHEMA)
    assert MEANINGS.keys() == KEYS.keys()
    for section, keys in KEYS.items():
        whole = SCHEMA["properties"][section]
        schema = whole["anyOf"][1] if section in WORDS_FOR_SECTIONS else whole
        assert schema["properties"].keys() == keys.keys()
        for name, key in keys.items():
            assert key.kind.schema, f"{section}.{name}: its Kind has no schema"
            assert schema["properties"][name]["description"] == key.meaning
    properties = SCHEMA["properties"]["limits"]["properties"]
    assert properties["concurrency"]["default"] == 256
    assert SCHEMA["properties"]["simulator"]["properties"]["latency_s"]["default"] == [0.5, 1.5]
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert {key.path.split(".")[0] for key in job_keys()} == SCHEMA["properties"].keys()

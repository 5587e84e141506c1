"""The section `matrix` of a job: which cells it makes, what identifies them, and what is refused."""

import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.errors import JobError
from cometbatch.job import Job, load_job
from cometbatch.job.keys import KEYS
from cometbatch.job.matrix import Cell, digest_of
from cometbatch.results.columns import COLUMNS
from tests.test_job import SMALL, merged, refused, small, written

TEXT = """\
input:  {path: gsm.csv, id: id}
output: {path: out.parquet}
target: {format: chat}
prompt: {user: "{{ question }}"}
params: {max_output_tokens: 512}
matrix:
  model: [model-a, model-b]
  params.temperature: [0, 0.5]
  variant:
    - {name: plain}
    - {name: thinks, params: {max_output_tokens: 4096, extra: {reasoning_effort: high}}}
  samples: 4
"""


def matrix(*, of: dict[str, Any] = SMALL, **axes: Any) -> dict[str, Any]:
    """A small job with these axes; a double underscore in a name is its dot."""
    return of | {"matrix": {name.replace("__", "."): values for name, values in axes.items()}}


def cells(source: Any, *overrides: str) -> tuple[Cell, ...]:
    """The cells of a job."""
    return load_job(source, overrides).cells()


def test_a_job_without_a_matrix_is_as_it_was() -> None:
    """One cell without labels, one sample; its description and its fingerprint say nothing of a matrix."""
    job = load_job(small())
    (cell,) = job.cells()
    assert (job.matrix, job.samples, cell.labels) == (None, 1, {})
    assert cell == Cell({}, job.targets()[0], job.prices, digest_of(job.targets()[0]))
    assert "matrix" not in job.describe()
    assert not any("matrix" in key for key in job.fingerprint())
    assert load_job(small(matrix=None)) == job


def test_cells_come_in_the_order_of_the_job_with_the_first_axis_slowest(tmp_path: Path) -> None:
    """Each cell has a label of each axis by the last word of its name, and model and format always."""
    job = load_job(written(tmp_path, TEXT))
    assert job.samples == 4
    assert job.matrix is not None
    assert job.matrix.columns == ("model", "temperature", "variant", "format")
    assert [tuple(cell.labels.values()) for cell in job.cells()] == [
        (*labels, "chat") for labels in itertools.product(("model-a", "model-b"), (0, 0.5), ("plain", "thinks"))
    ]
    thinks = job.cells()[1]
    assert (thinks.target.params.max_output_tokens, thinks.target.params.temperature) == (4096, 0.0)
    assert thinks.target.params.extra == {"reasoning_effort": "high"}
    assert (job.target.model, job.params) == ("model-a", job.cells()[0].target.params)


AXES: dict[str, list[Any]] = {
    "model": ["model-a", {"name": "b", "value": "model-b"}],
    "format": ["chat", "messages", "gemini"],
    "params.temperature": [0, 0.5, {"name": "unset", "value": None}],
    "params.stop": [{"name": "none", "value": []}, "###"],
    "params.extra.effort": ["low", "high"],
    "prompt.system": ["Be brief.", {"name": "long", "value": "Explain each step.\n" * 5}],
    "variant": [
        {"name": "plain"},
        {"name": "long", "params": {"max_output_tokens": 900, "extra": {"top_k": 5}}, "params.top_p": 0.5},
        {"name": "asked otherwise", "prompt": {"user": "Q: {{ body }}"}, "prices": {"input": 1, "output": 2}},
    ],
}  # fmt: skip


def laid(job: dict[str, Any], axis: str, value: Any) -> dict[str, Any]:
    """The plain job that has this value of an axis."""
    if axis == "variant":
        for key, inner in value.items():
            if key != "name":
                job = merged(job, {key: inner}) if "." not in key else laid(job, key, inner)
        return job
    words = {"model": "target.model", "format": "target.format"}.get(axis, axis).split(".")
    change = value["value"] if isinstance(value, dict) else value
    for word in reversed(words):
        change = {word: change}
    return merged(job, change)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(sorted(AXES)), min_size=1, max_size=3, unique=True), st.data())
def test_a_cell_is_the_job_with_its_values_laid_over_it(names: list[str], data: st.DataObject) -> None:
    """Target and prices of each cell are those of the plain job that has its keys, whatever the axes are."""
    base = SMALL | {"params": {"max_output_tokens": 7, "extra": {"user": "me"}}, "prices": {"input": 3, "output": 4}}
    axes = {name: data.draw(st.lists(st.sampled_from(AXES[name]), min_size=1, unique_by=str)) for name in names}
    found = cells(base | {"matrix": axes})
    combinations = list(itertools.product(*axes.values()))
    assert len(found) == len(combinations)
    for cell, values in zip(found, combinations, strict=True):
        plain = base
        for name, value in zip(names, values, strict=True):
            plain = laid(plain, name, value)
        (expected,) = cells(plain)
        assert (cell.target, cell.prices, cell.digest) == (expected.target, expected.prices, expected.digest)


def test_a_description_holds_the_matrix() -> None:
    """It is JSON, gives the same job back, and has each prompt once."""
    prompt = "Once. " + "{{ body }} " * 50
    job = load_job(matrix(model=["a", "b"], params__temperature=[0, 1], of=small(prompt={"user": prompt})))
    described = msgspec.json.encode(job.describe())
    back = Job.from_description(msgspec.json.decode(described))
    assert (back.cells(), back.fingerprint(), back.describe()) == (job.cells(), job.fingerprint(), job.describe())
    assert described.count(b"Once.") == 2  # of the job, and of all its cells


# --- what identifies a cell and a run ---------------------------------------------------------------------------------


def test_a_cell_is_told_by_what_it_asks() -> None:
    """Neither labels, nor places, nor the axis that sets a key are part of its digest; what is sent is."""
    one = cells(matrix(model=["m-1", "m-2"], params__temperature=[0, 1]))
    other = cells(
        matrix(
            version=[{"name": "x", "params": {"temperature": 1}}, {"name": "y", "params": {"temperature": 0}}],
            model=[{"name": "second", "value": "m-2"}, "m-1"],
        )
    )
    assert {cell.digest for cell in one} == {cell.digest for cell in other}
    assert len({cell.digest for cell in one}) == 4
    assert cells(small(params={"temperature": 0}))[0].digest == one[0].digest


def test_the_fingerprint_of_a_run_holds_what_no_axis_sets() -> None:
    """Values, order and names of axes, and the number of samples, may change; any other key may not."""
    base = load_job(matrix(model=["a", "b"], params__temperature=[0, 1], samples=2)).fingerprint()
    for same in (
        matrix(model=["c"], params__temperature=[0.5], samples=9),
        matrix(params__temperature=[0], model=["a", "b"]),
    ):
        assert load_job(same).fingerprint() == base
    changed = load_job(matrix(of=small(params={"top_p": 0.5}), model=["a"], params__temperature=[0])).fingerprint()
    assert {key for key in base if base[key] != changed[key]} == {"params.top_p"}
    assert not {"target.model", "params.temperature"} & base.keys()


def test_an_axis_over_one_key_of_extra_leaves_the_others_in_the_fingerprint() -> None:
    """The keys of a mapping are compared one by one."""
    of = small(params={"extra": {"user": "me", "effort": "none"}})
    said = load_job(matrix(of=of, params__extra__effort=["low", "high"])).fingerprint()
    assert said["params.extra.user"] == "me"
    assert "params.extra.effort" not in said


# --- samples and seeds ------------------------------------------------------------------------------------------------


def test_each_sample_has_the_next_seed_where_the_format_takes_one() -> None:
    """In a cell whose format has no place for it, the seed of the job is left out; without one, samples are equal."""
    job = load_job(matrix(of=small(params={"seed": 7}), format=["chat", "messages"], samples=3))
    chat, messages = job.cells()
    assert [chat.target_of(sample).params.seed for sample in range(3)] == [7, 8, 9]
    assert [messages.target_of(sample) for sample in range(3)] == [messages.target] * 3
    assert messages.target.params.seed is None
    assert job.fingerprint()["params.seed"] == 7
    (plain,) = cells(matrix(samples=2))
    assert plain.target_of(1) == plain.target_of(0)


def test_overrides_reach_into_the_matrix(tmp_path: Path) -> None:
    """`--set` sets samples and axes as any other key; nothing takes an axis away."""
    path = written(tmp_path, TEXT)
    assert load_job(path, ["matrix.samples=8"]).samples == 8
    assert len(cells(path, "matrix.params.temperature=[1]", "matrix.variant=null")) == 2
    assert [cell.labels["model"] for cell in cells(path, "matrix.model=[c]", "matrix.variant=")] == ["c", "c"]
    assert load_job(path, ["matrix=null", "target.model=m"]).matrix is None


# --- what is refused --------------------------------------------------------------------------------------------------

LONG = "Answer the question in at most three words: {{ body }}"
NOT_OF_CELLS = (
    *("input.path", "output.prefix", "limits.concurrency", "retry.max_attempts", "budget.max_cost_usd", "budget"),
    *("simulator.seed", "target.base_url", "target.key_env", "target.headers", "target.model_column", "input"),
    *("response.schema", "reuse", "dedupe", "telemetry", "accept.failed", "prompt.images", "prompt.allow_empty"),
)


@pytest.mark.parametrize("key", NOT_OF_CELLS)
def test_a_key_that_is_the_same_in_all_cells_is_refused_by_name(tmp_path: Path, key: str) -> None:
    """As an axis and in a variant, with file and line."""
    path = written(tmp_path, TEXT + f"  {key}: [a, b]\n")
    assert f"job.yaml:13: matrix.{key}: is the same in all cells: set it beside the matrix" in refused(path)
    section, _, name = key.partition(".")
    inner = f"{section}: {{{name}: a}}" if name and section in ("target", "prompt") else f"{key}: a"
    path = written(tmp_path, TEXT + f"  v:\n    - {{name: x, {inner}}}\n")
    assert "job.yaml:14: matrix.v[0]" in (words := refused(path))
    assert "is the same in all cells" in words


WRONG: list[tuple[str, str]] = [
    ("model: []", "job.yaml:7: matrix.model: expected a list of 1 to 1,000 values, found 0 of them"),
    ("model: model-a", "matrix.model: expected a list of 1 to 1,000 values, found no list"),
    ("model: [a, a]", "matrix.model: the label 'a' is there twice"),
    ("model: [a, {name: b, value: a}]", "the cell model=b asks just what the cell model=a asks: leave one of them out"),
    ("params.temperature: [1, 1.0]", "the label '1.0' is there twice"),
    ("params.temperature: [0, 7]", "params.temperature: expected a number from 0 to 2, found '7' (in the cell"),
    ("params.temperature: [[1]]", "give it a name: {name: …, value: …}"),
    ("params.temperature: [{value: 1}]", "expected a value, or a mapping of name and value"),
    ("params.temperature: [null]", "expected a text, a number or a truth value, found nothing: give it a name"),
    ("params.temperatur: [0, 1]", "matrix.params.temperatur: unknown key; did you mean 'temperature'?"),
    ("temperature: [0, 1]", "matrix.temperature[0]: expected a mapping with name and keys that are laid over the job"),
    ("temperature: [0, 1]", "found '0': did you mean 'params.temperature'?"),
    ("params: [1]", "matrix.params: an axis sets one key, as params.max_output_tokens does"),
    (f"prompt.user: ['{LONG}']", "a text of several lines, or above 40 characters, is no label: give it a name"),
    ("v: [{params: {top_p: 1}}]", "matrix.v[0]: name is missing"),
    ("v: [{name: a, modle: x}]", "matrix.v[0].modle: unknown key"),
    ("v: [{name: a, params: {seed: x}}]", "params.seed: expected a whole number"),
    ("v: [{name: a, model: b}, {name: c, target: {model: b}}]", "the cell v=c asks just what the cell v=a asks"),
    ("model: [a]\n  v: [{name: x, model: y}]", "job.yaml:8: matrix.v: sets target.model, as the axis model does"),
    ("params.extra.status: [1, 2]", "its column would be named status, as another one of the result is"),
    ("sample: [{name: a}]", "its column would be named sample"),
    ("params.extra.v: [1, 2]\n  v: [{name: a}]", "its column would be named v, as that of params.extra.v is"),
    ("samples: 0", "matrix.samples: expected a whole number from 1 to 10000, found '0'"),
    ("samples: 10_001", "matrix.samples: expected a whole number from 1 to 10000"),
    ("samples: 6000\n  model: [a, b]", "2 cells and 6,000 samples make 12,000 passes over the rows, and"),
    ("params.seed: [1, 2]\n  format: [chat, messages]", "params.seed has no place in the messages format"),
]  # fmt: skip


@pytest.mark.parametrize(("axis", "words"), WRONG)
def test_what_is_wrong_with_an_axis_is_told_with_file_and_line(tmp_path: Path, axis: str, words: str) -> None:
    """And what can be done about it."""
    head = TEXT.partition("  model:")[0].replace("format: chat", "model: m-1" if "format:" in axis else "format: chat")
    if "model" not in axis:
        head = head.replace("format: chat", "format: chat, model: m-1")
    said = refused(written(tmp_path, f"{head}  {axis}\n"))
    assert "job.yaml:" in said
    assert words in said


@pytest.mark.parametrize("name", [column.name for column in COLUMNS if column.name not in KEYS])
def test_an_axis_named_like_a_column_of_the_result_is_refused(name: str) -> None:
    """Two columns of one name could not be told apart."""
    assert f"its column would be named {name}" in refused(small(matrix={name: [{"name": "a"}]}))


def test_model_and_format_are_required_in_the_job_or_on_an_axis() -> None:
    """A job that names one of them for some cells alone is refused, too."""
    bare = merged(SMALL, {"target": {"model": None}})
    assert "target.model: is missing" in refused(bare | {"matrix": {"samples": 2}})
    assert cells(bare | {"matrix": {"model": ["a"]}})[0].target.model == "a"
    half = {"matrix": {"v": [{"name": "a", "model": "x"}, {"name": "b"}]}}
    assert "target.model: is missing (in the cell v=b)" in refused(bare | half)


def test_what_does_not_go_together_with_a_matrix_is_refused() -> None:
    """Rows that name their models, equal requests sent once, and one seed for all samples of a row."""
    column = small(target={"model_column": "m"})
    assert "target.model_column: can't be there beside matrix" in refused(matrix(of=column, model=["a"]))
    assert "dedupe: would send one of 2 equal samples" in refused(matrix(of=small(dedupe=True), samples=2))
    assert load_job(matrix(of=small(dedupe=True), model=["a", "b"])).dedupe
    seeds = small(params={"columns": {"seed": "s"}})
    assert "params.columns.seed: would give all samples of a row one seed" in refused(matrix(of=seeds, samples=2))
    large = small(params={"seed": (1 << 63) - 1})
    assert "params.seed: leaves no room for the 2 seeds" in refused(matrix(of=large, samples=2))
    assert "matrix: expected a mapping of axes to lists of values" in refused(small(matrix=3))
    assert "found nothing in it" in refused(small(matrix={}))


def test_a_key_in_the_matrix_is_refused_and_never_shown() -> None:
    """As a value, as a name, and as the name of an axis."""
    planted = "sk-Planted0Secret1Value2Here3"
    for axes in (
        {"model": [planted]},
        {"v": [{"name": planted}]},
        {planted: [{"name": "a"}]},
        {"v": [{"name": "a", "params": {"extra": {"api_key": planted}}}]},
        {"params.extra.token": ["a" * 24]},
    ):
        assert "keys do not belong in job files" in refused(small(matrix=axes))


def test_what_is_wrong_in_every_cell_is_told_once() -> None:
    """And what is wrong in some, with the first of these and how many more there are."""
    said = refused(matrix(model=["a", "b", "c"], of=small(params={"temperature": 9})))
    assert said.count("params.temperature") == 1
    assert "in the cell" not in said
    images = small(
        prompt={"user": None, "messages": [{"role": "user", "content": [{"image": "{{ body }}", "detail": "low"}]}]}
    )
    said = refused(matrix(of=images, model=["a", "b"], format=["chat", "messages"]))
    assert said.count("can't say how closely to look") == 1
    assert "(in the cell model=a, format=messages, and in 1 more)" in said


def test_many_cells_are_read_at_once() -> None:
    """A job is read within a moment, however many cells it may have; more are refused."""
    axes = {"model": [f"m-{number}" for number in range(100)], "params.temperature": [0, 0.5, 1]}
    assert len(cells(small(matrix=axes))) == 300
    axes["params.top_p"] = [0, 0.2, 0.4, 0.6]
    assert "the axes make 1,200 cells, and a job has at most 1,000" in refused(small(matrix=axes))


def test_the_schema_knows_the_axes(tmp_path: Path) -> None:
    """Editors complete the names of axes, and mark what is no list or has no name."""
    import jsonschema_rs  # noqa: PLC0415 - an extra

    from cometbatch.job.json_schema import job_schema  # noqa: PLC0415 - made from the tables

    schema = job_schema()
    assert {"model", "format", "prices.input", "params.temperature", "prompt.user", "samples"} - schema["properties"][
        "matrix"
    ]["properties"].keys() == {"prices.input"}
    validator = jsonschema_rs.validator_for(schema)
    assert validator.is_valid(matrix(of=merged(SMALL, {"target": {"model": None}}), model=["a", "b"], samples=2))
    wrong: dict[str, Any]
    for wrong in ({"model": "a"}, {"model": []}, {"samples": 0}, {"params.temperature": ["x"]}, {"v": [{"a": 1}]}, {}):
        assert not validator.is_valid(small(matrix=wrong)), wrong


def test_a_job_that_is_no_job_is_refused_as_one() -> None:
    """A matrix hides nothing that is wrong beside it."""
    with pytest.raises(JobError, match="unknown key; did you mean 'limits'"):
        load_job(matrix(of=SMALL | {"limit": {}}, model=["a"]))

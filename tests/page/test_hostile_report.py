"""`report` on results that somebody else has changed: a page or a clear error in bounded time, whatever they say."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.commands import report_prompts
from cometbatch.commands.report import PROMPT_CHARACTERS, with_prompts
from cometbatch.errors import CometbatchError
from tests.page.reading import Page, read_page
from tests.workbench import Workbench, carry_out, simulator

DEEP = "[" * 100_000
LONG = "9" * 5_000
SECONDS = 60


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    """A finished run of two rows; a report that takes a minute is stopped."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    bench = Workbench(tmp_path)
    bench.write_rows(2)
    carry_out(bench.job(), simulator())
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield bench
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def changed(bench: Workbench, **said: str | bytes) -> Page | None:
    """The page of the result with these entries of its metadata changed; None where there is a clear error."""
    table = pq.read_table(bench.output)
    metadata = pq.read_metadata(bench.output).metadata | {
        f"cometbatch.{key}".encode(): value if isinstance(value, bytes) else value.encode()
        for key, value in said.items()
    }
    path = bench.folder / "changed.parquet"
    pq.write_table(table.replace_schema_metadata(metadata), path)
    page = bench.folder / "page.html"
    try:
        cometbatch.report(path, output=page)
    except CometbatchError as error:
        assert error.exit_code == 2  # noqa: PT017 - an error is allowed, and none that is not clear
        return None
    return read_page(page)


def job_of(bench: Workbench, change: Callable[[dict[str, Any]], object]) -> str:
    """The job in the metadata of the result, changed."""
    job = json.loads(pq.read_metadata(bench.output).metadata[b"cometbatch.job"])
    change(job)
    return json.dumps(job)


def why(page: Page | None) -> str:
    """Why a page's only source has no prompts."""
    assert page is not None
    return str(page.meta["sources"][0]["no_prompts"])


def test_metadata_that_are_anything_make_a_page(bench: Workbench) -> None:
    """No JSON, JSON of another kind, too deep, too long, no UTF-8, half of a surrogate pair, amounts that are none."""
    for text in (b"\xff\xfe", "", DEEP, LONG, "[1]", '{"a": NaN}', '[{"name": "\\ud800"}]'):
        for key in ("job", "targets", "slices", "scores", "bill", "run_id", "prices"):
            page = changed(bench, **{key: text})
            assert page is not None
            assert len(page.rows) == 2


def test_a_bill_that_is_none_costs_nothing(bench: Workbench) -> None:
    """An amount of a text, below nothing, not finite, or with an endless number of digits is left out."""
    for value in ('"x"', "-1", "NaN", "Infinity", '"1e999999999"', "[1]", "true", "null", "1.5", LONG[:400]):
        names = ("charges_usd", "charges_unknown", "replaced_usd", "rejected_usd")
        page = changed(bench, bill=f"{{{','.join(f'{json.dumps(name)}: {value}' for name in names)}}}")
        assert page is not None
        cost = page.meta["overview"]["sources"][0]["cost"]
        assert float(cost["possible_usd"]) in (0, 1.5)
        assert len(cost["possible_usd"]) < 10


def test_labels_that_are_no_labels_are_no_matrix(bench: Workbench) -> None:
    """Lists and mappings in the place of labels, and numbers that are none."""
    for label in ("[]", "{}", "null", "NaN", "1e999"):
        page = changed(bench, slices=f'[{{"labels": {{"model": {label}}}, "sample": 0}}]')
        assert page is not None


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("target.key_env", lambda job: job["target"].update(key_env='X"; touch x; "')),
        ("target.key_env", lambda job: job["target"].update(key_env="")),
        ("target.base_url", lambda job: job["target"].update(base_url="https://name:secret@example.com")),
        ("target.base_url", lambda job: job["target"].update(base_url="javascript:alert(1)")),
        ("target.base_url", lambda job: job["target"].update(base_url="-o/tmp/x")),
        ("target.headers", lambda job: job["target"].update(headers={"x\r\nhost": "a"})),
        ("target.headers", lambda job: job["target"].update(headers={"x-a": "a\nb"})),
        ("target.headers", lambda job: job["target"].update(headers={"authorization": "Bearer x"})),
        ("target.headers", lambda job: job["target"].update(headers={"x-a": "$(touch x)"})),
        ("", lambda job: job.update(images={"root": "/\0"})),
        ("", lambda job: job.update(params=LONG)),
    ],
)
def test_what_no_job_file_can_have_is_no_job(
    bench: Workbench, words: str, change: Callable[[dict[str, Any]], object]
) -> None:
    """Nothing of it is in a request that a reader may copy: the page says that this describes no job."""
    said = why(changed(bench, job=job_of(bench, change)))
    assert said.startswith(f"The prompts can't be rendered again: this describes no job ({words}")


def test_a_matrix_that_no_job_file_makes_is_no_job(tmp_path: Path) -> None:
    """Cells without labels for each axis, of a prompt that there is not, more samples than there can be."""
    bench = Workbench(tmp_path)
    bench.write_rows(1)
    carry_out(bench.job(matrix={"params.temperature": [0, 1], "samples": 2}), simulator())
    changes: list[Callable[[dict[str, Any]], object]] = [
        lambda job: job["matrix"].update(samples=10**30),
        lambda job: job["matrix"].update(samples=10**9),
        lambda job: job["matrix"].update(samples=0),
        lambda job: job["matrix"]["cells"][0].update(labels=[]),
        lambda job: job["matrix"]["cells"][0].update(prompt=9),
    ]
    for change in changes:
        assert "this describes no job" in why(changed(bench, job=job_of(bench, change)))


def templated(bench: Workbench, template: str) -> Page:
    """The page of the result whose last message has this template."""
    page = changed(bench, job=job_of(bench, lambda job: job["messages"][-1].update(template=template)))
    assert page is not None
    return page


@pytest.mark.parametrize(
    "template",
    [
        "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{% set n = namespace(x=[]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
        "{% set n = [row, row] %}{% set n = [n, n] %}{{ n == n }}",
        "{{ range(100000)|map('center', 1000000)|list }}",
        "{{ ('x' * 1000000).join(['a'] * 1000000) }}",
        "{{ note.replace('a', note) }}",
        "{{ note|indent(1000000) }}",
        "{{ [[0]]|sum(start=[]) }}",
        "{{ 1" + "+1" * 4_000 + " }}",
        "{{ note }}" * 100_000,
        "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    ],
)
def test_a_template_that_could_run_without_end_is_not_run(bench: Workbench, template: str) -> None:
    """Where the reader did not name the job that has it. The page says what it has, and what to do."""
    said = why(templated(bench, template))
    assert said.startswith("The prompts can't be rendered again: a template of its job has ")
    assert "name its job file in place of the result" in said


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% for a in range(100000) %}{{ note * 1 }}{% endfor %}{{ 'a%s' % note }}",
        "{% set a = note ~ '0123456789' %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}",
        "{% set a = 99 %}" + "{% set a = a * a %}" * 40 + "{{ a }}",
        "{{ (note ~ '\"')" + "|tojson" * 60 + " }}",
    ],
)
def test_a_template_that_takes_too_much_is_stopped(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    """Each row has the reason in the place of its prompt."""
    monkeypatch.setattr(report_prompts, "FOREIGN_S", 0.2)
    monkeypatch.setattr(report_prompts, "FOREIGN_CHARACTERS", 1 << 20)
    page = templated(bench, template)
    for row in page.rows:
        assert "takes more time or memory than a job in a result is given" in row.more["why"]


def test_usual_templates_of_a_result_are_rendered(bench: Workbench) -> None:
    """Loops over what the row has, conditions, filters and methods."""
    page = templated(
        bench,
        "{% for word in note.split() %}{{ loop.index }}. {{ word|upper }}{% if not loop.last %}, {% endif %}"
        "{% endfor %}"
        "{% set n = note|length + 1 %} {{ n * 2 }} {{ row|tojson }} {{ [1, 2]|join('-') }} {{ note[:3] ~ n % 7 }}",
    )
    assert [row.more.get("why") for row in page.rows] == [None, None]
    assert all(row.texts["prompt"] for row in page.rows)


def test_the_named_jobs_own_templates_are_trusted(bench: Workbench) -> None:
    """Whoever names a job file could as well run it."""
    template = "{% macro f(n) %}<{{ n }}>{% endmacro %}{{ f(note) }}"
    job = bench.job(prompt={"user": template}, output={"path": str(bench.folder / "own.parquet")})
    carry_out(job, simulator())
    cometbatch.report(job, output=bench.folder / "page.html")
    page = read_page(bench.folder / "page.html")
    assert page.meta["sources"][0]["no_prompts"] is None
    cometbatch.report(job.output.path, output=bench.folder / "page.html")
    assert "has a macro in line 1" in why(read_page(bench.folder / "page.html"))


def test_long_prompts_are_rendered_few_at_a_time() -> None:
    """So that a long text that all rows share does not fill the memory."""
    sizes: list[int] = []

    class Long:
        why_none = None

        def render(self, table: pa.Table) -> list[Any]:
            sizes.append(table.num_rows)
            return [(0, ("x" * 1_000_000,))] * table.num_rows

    table = pa.table({"n": range(100)})
    found = list(with_prompts(Long(), iter([(range(100), table)])))  # type: ignore[arg-type]
    assert [list(places) for places, _, _ in found] == [some.column("n").to_pylist() for _, some, _ in found]
    assert sum(sizes) == 100
    assert max(sizes) * 1_000_000 <= 2 * PROMPT_CHARACTERS
    assert max(sizes[1:]) * 1_000_000 <= PROMPT_CHARACTERS

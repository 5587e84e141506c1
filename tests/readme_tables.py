"""The tables of README and docs/ made from code. `python -m tests.readme_tables` writes them, a test checks them."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from cometbatch import cli, job
from cometbatch.commands import metrics_file
from cometbatch.control import retry_table
from cometbatch.evaluation import score_columns
from cometbatch.results import columns, events, slices
from cometbatch.results.score_columns import ANSWER, WHY
from cometbatch.telemetry import names
from cometbatch.wire import payload
from tests import export_tables, prompt_tables, score_tables
from tests.benchmarks import compare, model, report

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MEASURED = Path(__file__).parent / "benchmarks/results/raw.jsonl"
MARKED = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def tables() -> dict[str, str]:
    """Every table by name, as Markdown."""
    keys = ((f"`{key.path}`", key.type, _code(key.default), key.meaning) for key in job.job_keys())
    codes = ((str(code), meaning) for code, meaning in cli.EXIT_CODES)
    records = report.Records(compare.read(MEASURED))
    bars = ((each.case, each.bar, each.found, "yes" if each.is_met else "no") for each in report.verdicts(records))
    return {
        "job_keys": table(("key", "takes", "default", "meaning"), keys),
        "columns": columns_table(columns.COLUMNS),
        "asked_columns": columns_table(columns.ASKED_COLUMNS),
        "matrix_columns": table(("column", "type", "meaning"), slices.MEANINGS),
        "score_columns": table(("column", "type", "meaning"), _score_columns()),
        "score_why": table(
            ("word", "meaning"), ((f"`{word}`", meaning) for word, meaning in score_columns.WHY_MEANINGS.items())
        ),
        "finish_words": table(("finish reason", "words"), _finish_words()),
        "retry": retry_table.retry_table_markdown(),
        "exit_codes": table(("exit code", "meaning"), codes),
        "bars": table(("case", "bar", "measured", "met"), bars),
        "model": model.markdown(),
        "cells": table(("in the file", "the value", "in the prompt"), prompt_tables.cells()),
        "exported": table(("cell", "in CSV", "in JSONL"), export_tables.forms()),
        "nulls": table(("template", "in the prompt, where `note` is null"), prompt_tables.nulls()),
        "written": table(("template", "columns", "refused with"), prompt_tables.written()),
        "lines": table(("`x` in the lines", "the result's column", "`{{ x }}` in the prompts"), prompt_tables.lines()),
        "fromjson": table(("the cell `x`", "template", "in the prompt"), prompt_tables.from_json()),
        "event_fields": table(
            ("field of each line", "meaning"), ((f"`{name}`", words) for name, words in events.COMMON.items())
        ),
        "events": table(("event", "level", "when", "fields"), _events()),
        "metrics": table(("metric", "type", "labels", "meaning"), _metrics()),
        "told": table(("template", "warning"), prompt_tables.told()),
        "otel_metrics": table(("metric", "kind", "unit", "attributes", "meaning"), _otel_metrics()),
        "row_spans": table(("attribute", "meaning"), _attributes(names.ROW_ATTRIBUTES)),
        "scorers": table(("scorer", "compares", "options"), score_tables.options()),
        "score_examples": table(
            ("scorer", "options", "answer", "gold", "score", "found", "why"), score_tables.examples()
        ),
        "score_order": table(("first", "what counts", "42 is read from"), score_tables.order()),
        "session_spans": table(("attribute", "meaning"), _attributes(names.SESSION_ATTRIBUTES)),
    }


def columns_table(some: Iterable[columns.Column]) -> str:
    """Output columns with what they mean."""
    return table(("column", "type", "meaning"), ((f"`{each.name}`", each.words, each.meaning) for each in some))


def _score_columns() -> Iterable[tuple[str, ...]]:
    endings = ("", ANSWER, WHY)
    return ((f"`NAME{end}`", *words) for end, words in zip(endings, score_columns.MEANINGS, strict=True))


def _events() -> Iterable[tuple[str, ...]]:
    for name, event in events.EVENTS.items():
        fields = (f"`{field}`" + (f" ({words})" if words else "") for field, words in event.fields.items())
        said = ", ".join(fields).replace(
            f"`{events.SUMMARY}`", "and the keys of [`--json`](exit-codes.md#amounts-and-json)"
        )
        yield f"`{name}`", event.level, event.meaning, said


def _metrics() -> Iterable[tuple[str, ...]]:
    for name, metric in metrics_file.METRICS.items():
        yield f"`{name}`", metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.meaning


def _finish_words() -> Iterable[tuple[str, str]]:
    known = payload.FINISH
    for reason in dict.fromkeys(known.values()):
        yield f"`{reason}`", ", ".join(f"`{word}`" for word, meaning in known.items() if meaning == reason)
    yield "(generation failed: retried)", ", ".join(f"`{word}`" for word in sorted(payload.failure_words()))


def _otel_metrics() -> Iterable[tuple[str, ...]]:
    short = {names.REQUEST_MODEL: "model", names.OPERATION: "common"}
    common = {names.PROVIDER, names.SERVER_ADDRESS, names.SERVER_PORT, names.RESPONSE_MODEL}
    for metric in names.METRICS:
        is_of_model = names.OPERATION in metric.attributes
        left_out = common | {names.REQUEST_MODEL} if is_of_model else set()
        attributes = [short.get(each, f"`{each}`") for each in metric.attributes if each not in left_out]
        yield f"`{metric.name}`", metric.kind, f"`{metric.unit}`", ", ".join(attributes), metric.meaning


def _attributes(meanings: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    return ((f"`{name}`", meaning) for name, meaning in meanings.items())


def renewed(text: str) -> str:
    """A page's text with its tables as the code has them now."""
    known = tables()
    return MARKED.sub(lambda found: f"{found[1]}{known[found[2]].strip()}\n{found[4]}", text)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _code(default: str) -> str:
    return default if default in ("", "required") or " " in default else f"`{default}`"


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")

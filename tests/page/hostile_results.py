"""Results whose every cell, error and column name tries to become more than text in a page."""

from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pyarrow as pa

import cometbatch
from cometbatch.records import Completion, ErrorDetail, HttpResponse, Usage
from cometbatch.wire import FORMATS
from cometbatch.wire.envelope import build_error
from tests.reports.results import right, write, wrong
from tests.workbench import MODEL, Network, Workbench, carry_out

MEGABYTE: Final = 1_000_000
TEXTS: Final = {
    "the end of a script": "</script><script>hit = 1</script>",
    "an image": "<img src=x onerror=\"hit = 2\">",
    "an image from elsewhere": "<img src='http://127.0.0.1:9/leak'>",
    "a drawing": "<svg onload='hit = 3'><script>hit = 4</script></svg>",
    "a frame": "<iframe srcdoc='<script>parent.hit = 5</script>' src='javascript:hit = 6'></iframe>",
    "a style": "</style><style>* { display: none; background: url(http://127.0.0.1:9/leak) }</style>",
    "a comment": "<!--<script>hit = 7",
    "a base": "<base href='http://127.0.0.1:9/'><meta http-equiv=refresh content='0;url=http://127.0.0.1:9/leak'>",
    "an attribute": "\" autofocus onfocus=\"hit = 8\" x=\"' onmouseover='hit = 9",
    "a link": "[click](javascript:hit=10) javascript:hit=11 http://127.0.0.1:9/leak",
    "a template": "{{ constructor.constructor('hit = 12')() }} ${hit = 13} {{script}} {{meta}} {{chunks}} {{csp}}",
    "another direction": "a\u202egpj.exe\u202c \u2066b\u2069 \u200f",
    "ends of lines": "one\u2028two\u2029three\x85four\rfive",
    "what nobody sees": "a\0b\x1b[31m\x07\u200b\ufeff\u00ad\U000e0041",
    "a name of the language": "__proto__",
    "a formula": "=HYPERLINK(\"http://127.0.0.1:9/leak\")",
    "halves of characters": "\U0001f600 e\u0301 \U0001f468\u200d\U0001f469",
    "a megabyte": "w" * MEGABYTE,
    "a megabyte of lines": "x\n" * (MEGABYTE // 2),
    "a megabyte of markup": "<b onclick='hit = 14'>" * (MEGABYTE // 22),
}  # fmt: skip
"""Each by what it tries to be. Where one of them runs, `hit` is set."""
NAMES: Final = ("</script><img src=x onerror='hit = 20'>", "a\u202eb", "constructor", "\"'><b>", "{{script}}")
"""Columns of the input."""
LONE = "\ud800 and \udc00"


def answered(folder: Path) -> Path:
    """A result of a job whose rows, answers and errors are these texts. Every third row is refused with its text."""
    texts = list(TEXTS.values())
    bench = Workbench(folder)
    columns = {"id": [str(at) for at in range(len(texts))], "text": texts} | dict.fromkeys(NAMES, texts)
    bench.write_table(pa.table(columns))
    job = bench.settings(
        input={"id": "id"}, prompt={"system": TEXTS["the end of a script"], "user": "{{ id }}: {{ text }}"}
    )
    path = bench.folder / "job.yaml"
    path.write_bytes(msgspec.json.encode(job))  # JSON is YAML
    carry_out(cometbatch.load_job(path), Network(answer=_answer))
    return bench.output


def _answer(request: httpx.Request) -> httpx.Response | None:
    if request.method != "POST":
        return None
    said: Any = msgspec.json.decode(request.content)
    number = int(said["messages"][-1]["content"].partition(":")[0])
    text = list(TEXTS.values())[number]
    reply = FORMATS["chat"].build_response(MODEL, Completion(text, "stop", Usage(3, 2)))
    if number % 3 == 2:
        reply = build_error(ErrorDetail(400, message=text[:1_000]), "openai")
    if number == 0:
        body = reply.body.replace(
            b'"content":"', b'"content":"\\ud800 \\udc00 '
        )  # halves of characters, as JSON can have them
        reply = HttpResponse(reply.status, reply.headers, body)
    return httpx.Response(reply.status, headers=dict(reply.headers), content=reply.body)


def evaluated(folder: Path) -> Path:
    """A result with scores whose models, questions and reasons are these texts."""
    texts = [text[:5_000] for text in TEXTS.values()]
    inputs = {"question": texts, NAMES[0]: texts, "answer": texts}
    cells = [
        ({"model": name}, [[(right if at % 2 else wrong)(response=text, why=text) for at, text in enumerate(texts)]])
        for name in (TEXTS["an image"], TEXTS["another direction"])
    ]
    return write(folder / "scored.parquet", cells, inputs=inputs)

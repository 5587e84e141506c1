"""`map`: a table in, the same table with answers back. Python only: on the command line a job file says the same."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from cometbatch.commands.open_rows import open_rows
from cometbatch.commands.run import run
from cometbatch.commands.tables import Table, as_job, kind_of, to_arrow, with_answers
from cometbatch.errors import UsageError

if TYPE_CHECKING:
    import httpx


def map(  # noqa: A001 - what it does, for each row
    table: Table,
    *,
    prompt: str | Mapping[str, object],
    model: str,
    out: str | os.PathLike[str],
    format: str = "chat",  # noqa: A002 - the key of a job file that it stands for
    id: str | None = None,  # noqa: A002
    fresh: bool = False,
    update: bool = False,
    progress: bool | None = None,
    http: "httpx.AsyncBaseTransport | None" = None,
    **sections: object,
) -> Table:
    """Ask a model about each row of a table, and get the table back with the output columns behind its own.

    `table`: a `polars.DataFrame`, `pandas.DataFrame` or `pyarrow.Table`; what comes back is of the same kind, with the
    same rows in the same order. Any other stream of Arrow's comes back as a `pyarrow.Table`. `prompt`: the user's
    message as a template, or the `prompt` section of a job file. `out`: where the result is kept, as `output.path` of a
    job file; the same call on the same table resumes there, and pays for no answer twice. `id`: the column that names
    the rows. `update`: as of `run`, for a table that has grown or was edited. `sections`: other sections of a job file,
    as in `params={"max_output_tokens": 64}, dedupe=True`.

    A row without an answer has the reason in `status` and `error_message`; it raises nothing. Raises what `run` raises.
    """
    if kind_of(table) == "arrow":
        table = cast("Table", to_arrow(table))  # a stream gives its rows once
    said = {"user": prompt} if isinstance(prompt, str) else prompt
    named = {} if id is None else {"id": id}
    job = as_job(
        {
            **sections,
            "input": {**named, **_section(sections, "input")},
            "output": {"path": os.fspath(out), **_section(sections, "output")},
            "target": {"format": format, "model": model, **_section(sections, "target")},
            "prompt": said,
        },
        table,
    )
    if job.matrix is not None:
        raise UsageError(
            "map: with a matrix a row has several answers, and a table's rows have one place for each. Run the job and "
            "read its lines: cometbatch.run(job, input=table).to_polars()"
        )
    run(job, input=table, fresh=fresh, update=update, progress=progress, http=http)
    return with_answers(table, open_rows(job).output())


def _section(sections: Mapping[str, object], name: str) -> Mapping[str, object]:
    """What a caller says of a section that has further values of its own. Raises `UsageError`."""
    said = sections.get(name, {})
    if not isinstance(said, Mapping):
        raise UsageError(f"map: {name}: expected a mapping, found {type(said).__name__}")
    return said

"""Makes the runs under tests/data/version_3, once: `python -m tests.make_version_3`. They are kept as they are.

Every later program has to read what this one wrote, so these files are never made again by a newer one.
"""

import contextlib
import json
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import httpx

import cometbatch
from tests.workbench import carry_out

BEGUN = Path(__file__).parent / "data" / "version_3"
MADE_IN = Path("/tmp/version_3")  # a manifest names the job's files by absolute paths
ROWS = 10
REFUSED, CUT = 3, 5  # these rows fail, and end incomplete, until they are retried
JOB = """input: {path: in.csv, id: number}
output: {path: OUTPUT, partition_rows: 4}
target: {base_url: "http://127.0.0.1:9", format: chat, model: vendor-model-4.5}
prompt: {user: "Row {{ number }}: {{ text }}"}
params: {max_output_tokens: 16}
prices: {input: 0.5, output: 1.5}
limits: {concurrency: 1}
retry: {max_attempts: 1}
"""


class Answering(httpx.AsyncBaseTransport):
    """Answers every prompt with its own words, and notes which rows were asked.

    `uneven`: one row is refused, one is cut. `credit`: answers until the key is refused.
    """

    def __init__(self, *, uneven: bool = False, credit: int = 1000) -> None:
        self.rows: list[int] = []
        self._uneven, self._credit = uneven, credit

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)["messages"][-1]["content"]
        found = re.match(r"Row (\d+):", asked)
        assert found
        row = int(found[1])
        if len(self.rows) >= self._credit:
            return httpx.Response(401, json={"error": {"message": "Invalid token", "code": ""}})
        self.rows.append(row)
        if self._uneven and row == REFUSED:
            return httpx.Response(400, json={"error": {"message": "not this one", "code": "bad_row"}})
        reason = "length" if self._uneven and row == CUT else "stop"
        choice: dict[str, Any] = {"message": {"role": "assistant", "content": f"re: {asked}"}, "finish_reason": reason}
        usage = {"prompt_tokens": 5, "completion_tokens": 4}
        return httpx.Response(200, json={"id": "c", "model": "m", "choices": [choice], "usage": usage})


def job_in(folder: Path, *overrides: str) -> cometbatch.Job:
    """The job that stands beside a run."""
    return cometbatch.load_job(folder / "job.yaml", overrides)


def begin(name: str, output: str = "out.parquet") -> Path:
    """A folder with an input and a job, and no run yet."""
    folder = MADE_IN / name
    folder.mkdir(parents=True)
    rows = "".join(f"{row},word {row}\n" for row in range(ROWS))
    (folder / "in.csv").write_text("number,text\n" + rows, encoding="utf-8")
    (folder / "job.yaml").write_text(JOB.replace("OUTPUT", output), encoding="utf-8")
    return folder


def main() -> None:
    """Finished; stopped after six rows; stopped in the middle of a retry; a finished data set."""
    socket.gethostname = lambda: "host"  # a run's files name the machine, which is nobody's business
    shutil.rmtree(MADE_IN, ignore_errors=True)
    carry_out(job_in(begin("finished")), Answering(uneven=True))
    with contextlib.suppress(cometbatch.RunStoppedError):
        carry_out(job_in(begin("stopped")), Answering(uneven=True, credit=6))
    retried = begin("retried")
    carry_out(job_in(retried), Answering(uneven=True))
    with contextlib.suppress(cometbatch.RunStoppedError):
        cometbatch.run(job_in(retried), retry="failed,incomplete", progress=False, http=Answering(credit=1))
    carry_out(job_in(begin("dataset", "answers/")), Answering(uneven=True))
    shutil.copytree(MADE_IN, BEGUN)


if __name__ == "__main__":
    main()

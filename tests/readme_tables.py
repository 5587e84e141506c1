"""The README's tables that the code owns. `python tests/readme_tables.py` writes them; a test checks them."""

import re
from collections.abc import Iterable
from pathlib import Path

from cometbatch import cli, job, output, retry

README = Path(__file__).parent.parent / "README.md"
MARKED = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def tables() -> dict[str, str]:
    """Every table by name, as Markdown."""
    return {
        "job_keys": job.job_keys_markdown(),
        "columns": output.columns_markdown(),
        "retry": retry.retry_table_markdown(),
        "exit_codes": _rows("exit code | meaning", (f"{code} | {meaning}" for code, meaning in cli.EXIT_CODES)),
    }


def renewed(text: str) -> str:
    """A README's text with its tables as the code has them now."""
    known = tables()
    return MARKED.sub(lambda found: f"{found[1]}{known[found[2]].strip()}\n{found[4]}", text)


def _rows(head: str, rows: Iterable[str]) -> str:
    columns = head.count("|") + 1
    return "\n".join([f"| {head} |", "|" + " --- |" * columns, *(f"| {row} |" for row in rows)])


if __name__ == "__main__":
    README.write_text(renewed(README.read_text(encoding="utf-8")), encoding="utf-8")

"""`status`: what a run directory holds, while the run goes on or after, read without taking part in it."""

from pathlib import Path
from typing import Any

import polars as pl
from msgspec import Struct

from cometbatch.errors import UsageError
from cometbatch.results import parts
from cometbatch.results.summary import RunSummary, late_warnings
from cometbatch.run_state import resume
from cometbatch.run_state.directory import RunDirectory

RUN_SUFFIX = ".run"


class RunStatus(Struct, frozen=True):
    """A run as its files tell it. `latency_s` are quantiles over committed rows; `None` before the first part."""

    summary: RunSummary
    running: bool
    created_at: str
    partitions: int
    committed: int
    latency_s: dict[str, float] | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the summary's fields and the state of the run."""
        return {
            **self.summary.to_dict(),
            "running": self.running,
            "created_at": self.created_at,
            "partitions": self.partitions,
            "committed_partitions": self.committed,
            "latency_s": self.latency_s,
        }

    def describe(self) -> str:
        """A few lines for a person."""
        state = "finished" if self.summary.finished else "running" if self.running else "stopped; run it to carry on"
        lines = [
            f"run {self.summary.run_id}, begun {self.created_at}: {state}",
            f"partitions: {self.committed:,} of {self.partitions:,} committed",
            self.summary.describe(),
        ]
        if self.latency_s:
            lines.append("latency: " + ", ".join(f"{name} {value:.2f} s" for name, value in self.latency_s.items()))
        return "\n".join(lines)


def status(path: str | Path) -> RunStatus:
    """The status of the run at `path`: a run directory or the output beside it.

    Raises `UsageError` where there is no run, `CheckpointError` where its files are damaged.
    """
    directory, output = find_run(path)
    found = resume.find(directory, output)
    if found is None:
        raise no_run(directory)
    manifest, progressed = found.manifest, found.progressed
    prefix = str(manifest.fingerprint.get("output.prefix") or "")
    return RunStatus(
        summary=RunSummary(
            run_id=manifest.run_id,
            output=output,
            rows=manifest.input.rows,
            tally=progressed.tally,
            prices=manifest.prices,
            finished=found.is_finished,
            replaced=directory.reopened().replaced,
            warnings=(*manifest.warnings, *late_warnings(progressed.tally, manifest.prices)),
        ),
        running=directory.is_locked(),
        created_at=manifest.created_at,
        partitions=resume.partition_count(manifest),
        committed=len(progressed.committed),
        latency_s=_latency([directory.part_path(index) for index in progressed.committed], f"{prefix}latency_s"),
    )


def find_run(path: str | Path) -> tuple[RunDirectory, Path]:
    """The run directory that `path` is, or that stands beside it, and its output, wherever both were moved to."""
    path = Path(path).absolute()
    run_path = path if path.name.endswith(RUN_SUFFIX) else path.with_name(path.name + RUN_SUFFIX)
    output = run_path.with_name(run_path.name.removesuffix(RUN_SUFFIX))
    return RunDirectory(run_path, parts=output if output.is_dir() else None), output


def manifest_content(directory: RunDirectory) -> bytes:
    """The manifest's bytes. Raises `UsageError` where there is no run."""
    content = directory.read_manifest()
    if content is None:
        raise no_run(directory)
    return content


def no_run(directory: RunDirectory) -> UsageError:
    """What to say where there is none."""
    return UsageError(
        f"{directory.path}: there is no run here. Give the run directory, or the output that it stands beside."
    )


def _latency(paths: list[Path], column: str) -> dict[str, float] | None:
    """Quantiles over all parts. Raises `CheckpointError` where one can't be read."""
    if not paths:
        return None
    values = [pl.DataFrame({"latency_s": parts.read_column(path, column)}) for path in paths]
    latency = pl.col("latency_s")
    found = pl.concat(values).select(
        latency.median().alias("median"), latency.quantile(0.95).alias("p95"), latency.max().alias("max")
    )
    row = found.row(0, named=True)
    return None if row["median"] is None else row

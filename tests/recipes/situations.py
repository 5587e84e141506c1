"""A job for each way in which a run can end, with a service of its own that keeps a ledger."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from tests.recipes.page import recipe
from tests.stub_server import MODEL, StubServer, Trouble, wait_until

ROWS, FAILING_ACCEPTED, FAILING = 100, 1, 2
SLOW_S = 2.0  # seconds for an answer of a run that is to be stopped
CONCURRENCY = 4
LIMIT_S = 180.0  # for whatever is waited for
COMMAND = (sys.executable, "-m", "cometbatch")


@dataclass(frozen=True)
class Situation:
    """How a job ends, and why. `settings` replace keys of the page's job; `empty`: rows that have nothing to ask."""

    name: str
    code: int
    why: str
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    trouble: Trouble = field(default_factory=Trouble)
    latency_s: float = 0.0
    empty: int = 0
    accepts: bool = True


SITUATIONS = (
    Situation("done", 0, "every row is answered"),
    Situation("accepted", 0, "1 of 100 rows fails, within accept", empty=FAILING_ACCEPTED),
    Situation("damaged", 1, "the run's manifest is damaged"),
    Situation("wrong", 2, "the job file has an unknown key", settings={"limits": {"colour": "red"}}),
    Situation("failed", 3, "2 of 100 rows fail, more than accept allows", empty=FAILING),
    Situation("strict", 3, "1 of 100 rows fails, without accept", empty=FAILING_ACCEPTED, accepts=False),
    Situation("budget", 4, "the budget is reached", settings={"budget": {"max_cost_usd": 0.0005}}),
    Situation("refused", 5, "the service refuses the key", trouble=Trouble(refuse_key=True)),
    Situation("locked", 6, "another process has the run", latency_s=60.0),
)
STOPPED = {
    name: Situation(name, code, f"the scheduler or a person sends {name}", latency_s=SLOW_S)
    for name, code in (("SIGHUP", 129), ("SIGINT", 130), ("SIGTERM", 143))
}
FOLDERS = Situation("folders", 0, "a folder for each night", settings=yaml.safe_load(recipe("folders.yaml", {})))


class Prepared:
    """A situation in a folder, while its service is there."""

    def __init__(self, situation: Situation, folder: Path, server: StubServer) -> None:
        self.situation, self.folder, self.server = situation, folder, server
        self.job = folder / "job.yaml"
        self.key = folder / "key"

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """What a command says of the job."""
        line = [*COMMAND, arguments[0], str(self.job), *arguments[1:]]
        return subprocess.run(line, capture_output=True, text=True, timeout=LIMIT_S, check=False)

    def recorded(self) -> int:
        """The rows that have an answer, as the run itself knows them."""
        return int(json.loads(self.command("status", "--json").stdout)["succeeded"])

    def add_a_row(self, row: int = ROWS) -> None:
        """The table grows by one row over the day."""
        with (self.folder / "tickets.csv").open("a", encoding="utf-8") as file:
            file.write(f't{row},"Parcel {row}"\n')

    def nights(self) -> dict[str, int]:
        """Rows of the result, by the folders of nights."""
        folders = sorted((self.folder / "out").glob("[!_]*/"))
        return {each.name: sum(pq.read_metadata(part).num_rows for part in each.glob("*.parquet")) for each in folders}

    def wait_for_answers(self, count: int) -> None:
        """Until the service has given this many."""
        until(lambda: self.server.answered.total() >= count, f"{count} answers")

    def check_nothing_was_lost(self) -> None:
        """After a stop each answer is recorded, the next run asks the other rows alone, and pays for none twice."""
        answered = self.server.answered.total()
        assert 0 < answered < ROWS, answered
        assert self.recorded() == answered, (self.recorded(), answered)
        self.server.latency_s = (0.0, 0.0)
        self.check_the_rest()

    def check_the_rest(self) -> None:
        """The same command answers what is left, each row once over all."""
        done = self.command("run", "--json")
        assert done.returncode == 0, done.stderr
        assert self.server.wasted == 0, self.server.wasted
        assert len(self.server.answered) == ROWS


@contextlib.contextmanager
def prepared(situation: Situation, folder: Path) -> Iterator[Prepared]:
    """The page's job in a folder, changed so that it ends in this way."""
    folder.mkdir(parents=True)
    lines = [f't{row},"{"" if row < situation.empty else f"Parcel {row}"}"' for row in range(ROWS)]
    (folder / "tickets.csv").write_text("\n".join(["ticket_id,body", *lines, ""]), encoding="utf-8")
    latency = (situation.latency_s, situation.latency_s)
    with StubServer(situation.trouble, latency) as server:
        here = Prepared(situation, folder, server)
        here.key.write_text("sk-0123456789\n", encoding="utf-8")
        text = recipe("job.yaml", {"your-model-id": MODEL, "/etc/cometbatch/key": str(here.key)})
        settings = yaml.safe_load(text)
        settings["target"]["base_url"] = server.base_url
        settings["limits"] = {"concurrency": CONCURRENCY}
        if not situation.accepts:
            del settings["accept"]
        for section, keys in situation.settings.items():
            settings[section] = {**settings.get(section, {}), **keys}
        here.job.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
        if situation.name == "damaged":
            begin_and_damage(here)
        with holding(here) if situation.name == "locked" else contextlib.nullcontext():
            yield here


def begin_and_damage(here: Prepared) -> None:
    """A run that ended well; then its manifest is no longer JSON."""
    assert here.command("run", "--quiet").returncode == 0
    manifest = here.folder / "out/_triage.parquet.run/manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8")[:-20], encoding="utf-8")


@contextlib.contextmanager
def holding(here: Prepared) -> Iterator[None]:
    """Another process is at work on the run."""
    process = subprocess.Popen([*COMMAND, "run", str(here.job), "--quiet"], stdout=subprocess.DEVNULL)
    try:
        until(lambda: here.server.requests > 0, "the other process's first request")
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def all_prepared(folder: Path, situations: Sequence[Situation] = SITUATIONS) -> Iterator[dict[str, Prepared]]:
    """Several at once, by their names."""
    with contextlib.ExitStack() as stack:
        yield {each.name: stack.enter_context(prepared(each, folder / each.name)) for each in situations}


def until(is_so: Callable[..., bool], what: str, *about: object) -> None:
    """Wait until it is so, of what it is about. Fails where that takes minutes."""
    wait_until(lambda: is_so(*about), what, limit_s=LIMIT_S)


def environment(**more: str) -> dict[str, str]:
    """A scheduler's environment: no key in it, and no proxy between it and its own server."""
    kept = {name: value for name, value in os.environ.items() if name != "COMETAPI_KEY"}
    return {**kept, "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost", **more}

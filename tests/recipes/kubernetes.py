"""The CronJob of the page: its shape, and its container's command as the first process of its own process space."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from tests.recipes.page import for_folders, promised, recipe
from tests.recipes.places import UnavailableError, first_process, made
from tests.recipes.situations import (
    CONCURRENCY,
    FOLDERS,
    ROWS,
    SITUATIONS,
    STOPPED,
    Prepared,
    Situation,
    environment,
    prepared,
    until,
)

VALIDATOR = "kubernetes-validate==1.37.0"
LONG_S = 300.0  # seconds for an answer that no grace is long enough for
LEFT_S = 2.0  # seconds that the end of the process may take beyond `limits.stop_within_s`


def check(folder: Path, environments: Path, cometbatch: str) -> Iterator[str]:
    """Says what was tried, a line for each thing."""
    place = made("kubernetes", [VALIDATOR], environments)
    manifest = folder / "cronjob.yml"
    manifest.write_text(recipe("cronjob.yml", {}), encoding="utf-8")
    subprocess.run([place.program("kubernetes-validate"), "--strict", str(manifest)], check=True)
    yield f"the manifest has the shape that Kubernetes takes ({place.note})"
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        raise UnavailableError("the command is tried as the first process of a process space, which needs root")
    spec = yaml.safe_load(manifest.read_text(encoding="utf-8"))["spec"]["jobTemplate"]["spec"]
    ends = promised("Kubernetes")
    for situation in SITUATIONS:
        with prepared(situation, folder / situation.name) as here:
            code = container(here, cometbatch, spec).wait()
            assert (code, end_of(code, spec)) == (situation.code, ends[situation.code]), (situation, code)
    for name, situation in STOPPED.items():
        with prepared(situation, folder / name) as here:
            code = stopped(container(here, cometbatch, spec), here, name)
            assert (code, end_of(code, spec)) == (situation.code, ends[situation.code]), (situation, code)
            here.check_nothing_was_lost()
    yield "each exit code, and what the manifest's policy makes of it: as the table says"
    command = yaml.safe_load(for_folders("Kubernetes"))["command"]
    with prepared(replace(FOLDERS, latency_s=1.0), folder / FOLDERS.name) as here:
        words = {"/opt/cometbatch/bin/cometbatch": cometbatch, " ... ": f" {here.job} --wait 1 "}
        for old, new in words.items():
            command = [word.replace(old, new) for word in command]
        assert stopped(first_of_its_space(command), here, "SIGTERM") == 143
        here.server.latency_s = (0.0, 0.0)
        assert first_of_its_space(command).wait() == 0
        assert (list(here.nights().values()), here.server.wasted) == ([ROWS], 0), here.nights()
    yield "a folder for each night: SIGTERM arrives through the shell, and the next pod resumes that folder"
    yield from graces(folder, cometbatch, spec)


def container(here: Prepared, cometbatch: str, spec: dict[str, Any]) -> "subprocess.Popen[bytes]":
    """The container's command."""
    only = spec["template"]["spec"]["containers"][0]
    places = {"/opt/cometbatch/bin/cometbatch": cometbatch, "/srv/triage/job.yaml": str(here.job), "120": "1"}
    return first_of_its_space([places.get(word, word) for word in only["command"]])


def first_of_its_space(line: list[str]) -> "subprocess.Popen[bytes]":
    """A command as process 1 of a process space, where a signal without a handler is not delivered."""
    spaces = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return subprocess.Popen([*spaces, *line], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def stopped(process: "subprocess.Popen[bytes]", here: Prepared, name: str, after: int = 6) -> int:
    """Its exit code after a signal to process 1, once some answers are there."""
    if after:
        here.wait_for_answers(after)
    os.kill(first_process(process), getattr(signal, name))
    return process.wait()


def end_of(code: int, spec: dict[str, Any]) -> str:
    """What the manifest says of a pod that ended so. There is no cluster here: this reads the rules as written."""
    failing = [rule["onExitCodes"]["values"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    return "done" if code == 0 else "failed" if any(code in codes for codes in failing) else "retried"


def graces(folder: Path, cometbatch: str, spec: dict[str, Any]) -> Iterator[str]:
    """SIGTERM with answers of 300 s, then SIGKILL in the middle; each time the command runs again."""
    grace_s = float(spec["template"]["spec"]["terminationGracePeriodSeconds"])
    with prepared(Situation("grace", 143, "a pod's grace", latency_s=LONG_S), folder / "grace") as here:
        process = container(here, cometbatch, spec)
        until(lambda: here.server.requests > 0, "the first request")
        time.sleep(2)  # as many more as there will be
        asked = here.server.requests
        began = time.monotonic()
        code = stopped(process, here, "SIGTERM", after=0)
        took = time.monotonic() - began
        assert (code, here.recorded()) == (143, 0)
        assert took < min(grace_s, 25 + LEFT_S), took
        charged = json.loads(here.command("status", "--json").stdout)["thrown"]
        assert charged == asked, (charged, asked)
        yield f"SIGTERM with answers of 300 s: ended with 143 after {took:.1f} s of the pod's {grace_s:.0f} s"
    with prepared(Situation("killed", 137, "the grace is over", latency_s=2.0), folder / "killed") as here:
        process = container(here, cometbatch, spec)
        here.wait_for_answers(CONCURRENCY * 2)
        pid = first_process(process)
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGKILL)
        assert process.wait() != 0
        kept = here.recorded()
        assert kept >= CONCURRENCY, kept
        time.sleep(here.situation.latency_s + 0.5)  # the service answers what nobody waits for any more
        here.server.latency_s = (0.0, 0.0)
        done = container(here, cometbatch, spec).wait()
        assert done == 0
        assert len(here.server.answered) == 100
        assert here.server.wasted <= CONCURRENCY, here.server.wasted
        yield (
            f"SIGKILL with {CONCURRENCY} requests in flight, then the next pod: {kept} recorded answers are not sent "
            f"again, {here.server.wasted} in flight are"
        )

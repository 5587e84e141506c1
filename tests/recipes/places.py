"""Where recipes are tried: an environment for each tool, groups of processes, and a corner that nothing gets out of."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.stub_server import wait_until

ROOT = Path(__file__).parent.parent.parent
GRACE_S = 20.0  # seconds for a group of processes to end


class UnavailableError(Exception):
    """A tool can't be had on this machine; says why."""


@dataclass(frozen=True)
class Environment:
    """A Python environment with a tool. `note`: what making it took, and its size."""

    path: Path
    note: str

    def program(self, name: str) -> str:
        """One of its programs."""
        return str(self.path / "bin" / name)


def made(name: str, packages: Sequence[str], folder: Path, *, beside: bool = False) -> Environment:
    """An environment with these packages; one that is there is used again. `beside`: cometbatch is installed, too."""
    path = folder / name
    if (path / "made").exists():
        return Environment(path, (path / "made").read_text(encoding="utf-8"))
    began = time.monotonic()
    shutil.rmtree(path, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(path)], check=True)
    pip = [str(path / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    if packages:
        done = subprocess.run([*pip, *packages], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError(f"pip can't install {' '.join(packages)}: {done.stderr.strip()[-300:]}")
    seconds = time.monotonic() - began
    size = sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
    note = f"{' '.join(packages)}: {seconds:.0f} s to install, {size / 2**20:.0f} MiB"
    if beside:
        subprocess.run([*pip, str(ROOT)], check=True, capture_output=True)
        subprocess.run([*pip[:3], "check"], check=True, stdout=subprocess.DEVNULL)
        note += "; no conflict with cometbatch"
    (path / "made").write_text(note, encoding="utf-8")
    return Environment(path, note)


def programs_of(*packages: str, folder: Path) -> Path:
    """Programs of Debian packages, unpacked into a folder and not installed."""
    if shutil.which("apt-get") is None:
        raise UnavailableError("apt-get is not here")
    folder.mkdir(parents=True, exist_ok=True)
    for line in (["apt-get", "update", "-q"], ["apt-get", "download", "-q", *packages]):
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError(f"{' '.join(line)}: {done.stderr.strip()[-300:]}")
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(folder / "root")], check=True)
    return folder / "root"


@contextlib.contextmanager
def group(line: Sequence[str], log: Path, environment: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A server or daemon, with all that it starts, for the length of a block."""
    with log.open("ab") as file:
        process = subprocess.Popen(line, env=dict(environment), stdout=file, stderr=file, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def first_process(outer: "subprocess.Popen[bytes]") -> int:
    """Process 1 of the space, by the number that it has outside."""
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    return int(children.read_text(encoding="utf-8").split()[0])


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for_port(port: int, what: str) -> None:
    """Until somebody listens there."""

    def is_open() -> bool:
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", port)) == 0

    wait_until(is_open, what, limit_s=180)


SEAL = """
set -eu
kept=$1; work=$2; shift 2
mount --make-rprivate /
exec 9<"$kept"
for place in /tmp /dev/shm "$@"; do
    [ "$place" != -- ] || break
    mount -t tmpfs tmpfs "$place"
done
mkdir -p "$kept"
mount --no-canonicalize --bind /proc/self/fd/9 "$kept"
exec 9<&-
mount -t tmpfs tmpfs /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mapfile -t mounted < <(cut -d " " -f 5 /proc/self/mountinfo)
for place in "${mounted[@]}"; do
    place=$(printf %b "$place")
    case $place in /proc | /proc/* | /sys/fs/cgroup) continue ;; esac
    [ ! -e "$place" ] || mount -o remount,bind,ro "$place"
done
for place in /tmp /dev/shm "$@"; do
    [ "$place" != -- ] || break
    mount -o remount,bind,rw "$place"
done
mount --bind "$work" "$work"
mount -o remount,bind,rw "$work"
mount --bind "$work/run" /run
mkdir -p /run/systemd/system /run/user
for tool in /bin/systemd-tmpfiles /usr/bin/systemd-tmpfiles; do
    [ ! -e "$tool" ] || mount --bind /dev/null "$tool"
done
for place in / /dev /etc /home /root /sys /usr /var /var/tmp "$kept"; do
    [ ! -w "$place" ] || { echo "$place can be written to" >&2; exit 1; }
done
while [ "$1" != -- ]; do shift; done
shift
mount --make-rshared /
"$@" || exit $?
"""
"""All of the machine's files are read-only in it, on every file system, but for the folder `work`.

A daemon that tidies up finds nothing to harm: /tmp and /dev/shm are its own, and nothing is in them but the folder
`kept`, where that lies there.

Mounts are its own, and shared within it: systemd mounts a service's credentials from a namespace below. The daemon is
not the first process of the space: a systemd that is would take itself for the machine's.
"""


@contextlib.contextmanager
def sealed(folder: Path, hidden: Sequence[str], line: Sequence[str]) -> Iterator[list[str]]:
    """A command line that runs a daemon in namespaces of its own, in which it can write to one folder alone.

    `hidden`: folders that it finds empty. Whatever the daemon starts ends with it.
    """
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        raise UnavailableError("a daemon is tried in namespaces of its own, which needs root and unshare")
    kept = folder.parent  # the environments are in it, too
    (folder / "run").mkdir(parents=True, exist_ok=True)
    (folder / "seal.sh").write_text(SEAL, encoding="utf-8")
    cgroups = next((path for path in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
                    if (path / "cgroup.procs").exists()), None)  # fmt: skip
    if cgroups is None:
        raise UnavailableError("control groups of version 2 are not mounted")
    own = Path(tempfile.mkdtemp(prefix="cometbatch-recipes-", dir=cgroups))
    enter = f'echo $$ > {own}/cgroup.procs && exec "$@"'
    spaces = ["unshare", "--cgroup", "--pid", "--fork", "--kill-child", "--mount-proc", "--mount"]
    try:
        seal = ["bash", str(folder / "seal.sh"), str(kept), str(folder), *hidden, "--", *line]
        yield ["bash", "-c", enter, "bash", *spaces, *seal]
    finally:
        wait_until(lambda: removed(own), "the end of all that the daemon started", limit_s=GRACE_S)


def removed(group_: Path) -> bool:
    """Whether a control group could be removed, which is so once nothing runs in it."""
    try:
        for path in sorted(group_.rglob("*"), reverse=True):
            if path.is_dir():
                path.rmdir()
        group_.rmdir()
    except OSError:
        return False
    return True

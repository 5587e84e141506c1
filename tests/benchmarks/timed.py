"""Runs one command and tells what it took: CPU of it and of its children, wall time, peak memory. No more than that.

    python -I -S tests/benchmarks/timed.py --stdout FILE [--cores 0] -- COMMAND ...

A process of its own, and a small one, because the peak that the kernel reports of a child is never below what its
parent held when it began. Prints the child's process id at once and one JSON object at the end. The child's standard
error is a terminal of 80 columns, so that progress is shown as a person sees it; its last words are in the report.
"""

import argparse
import fcntl
import json
import os
import struct
import sys
import termios
import time

TERMINAL = struct.pack("HHHH", 24, 80, 0, 0)  # lines, columns
LAST_WORDS = 2000  # bytes of standard error that are kept
KIB_IN_MB = 1e6 / 1024


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--stdout", required=True)
    parser.add_argument("--cores", type=int, nargs="*")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    screen, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, TERMINAL)
    began = time.monotonic()
    pid = _spawn(given.command, given.cores, given.stdout, terminal)
    os.close(terminal)
    _say(str(pid))
    words = _watch(screen)
    _, status, used = os.wait4(pid, 0)
    report = {
        "exit_code": os.waitstatus_to_exitcode(status),
        "cpu_s": used.ru_utime + used.ru_stime,
        "wall_s": time.monotonic() - began,
        "peak_mb": used.ru_maxrss / KIB_IN_MB,
        "last_words": words.decode(errors="replace"),
    }
    _say(json.dumps(report))


def _spawn(command: list[str], cores: list[int] | None, stdout: str, terminal: int) -> int:
    every_core = os.sched_getaffinity(0)
    if cores:
        os.sched_setaffinity(0, cores)  # a child has its parent's
    files = [
        (os.POSIX_SPAWN_OPEN, 1, stdout, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
        (os.POSIX_SPAWN_DUP2, terminal, 2),
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
    ]
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=files)
    os.sched_setaffinity(0, every_core)
    return pid


def _watch(screen: int) -> bytes:
    words = b""
    while True:
        try:
            words = (words + os.read(screen, 65536))[-LAST_WORDS:]
        except OSError:  # the last who had the terminal open is gone
            return words


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

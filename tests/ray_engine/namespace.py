"""A network of a process's own, with loopback alone: what a cluster of Ray listens on there, nobody else can reach."""

import functools
import shutil
import subprocess
import sys
from typing import Final

_LOOPBACK: Final = (
    "import fcntl, os, socket, struct, sys\n"
    "flags = struct.pack('16sH14s', b'lo', 0x1 | 0x40, b'')  # IFF_UP, IFF_RUNNING\n"
    "fcntl.ioctl(socket.socket(), 0x8914, flags)  # SIOCSIFFLAGS\n"
    "os.execvp(sys.argv[1], sys.argv[1:])\n"
)


@functools.cache
def entering() -> tuple[str, ...] | None:
    """The words before a command that run it in such a network; None where this machine lets us have none."""
    if shutil.which("unshare") is None:
        return None
    for unshare in (("unshare", "--net"), ("unshare", "--user", "--map-root-user", "--net")):
        words = (*unshare, sys.executable, "-c", _LOOPBACK)
        if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
            return words
    return None

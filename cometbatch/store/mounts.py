"""Whether a folder is on a disk of this machine, where what one process maps into memory another one reads at once."""

import os
import re
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mounts")
LOCAL_TYPES: Final = frozenset(
    {
        *("apfs", "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfs", "hfsplus", "jfs", "nilfs2"),
        *("ntfs", "ntfs3", "overlay", "ramfs", "reiserfs", "rootfs", "tmpfs", "ubifs", "udf", "ufs", "vfat", "xfs"),
        "zfs",
    }
)
"""File systems of a machine's own disks, as Linux names them. Any other may be shared: NFS, FUSE, 9p, object stores."""
_ESCAPED: Final = re.compile(rb"\\([0-7]{3})")


def is_local(folder: Path, mounts: bytes | None = None) -> bool:
    """Whether a folder is on a disk of this machine; True where the system does not tell, as macOS does not.

    `mounts`: what /proc/self/mounts says, for who knows better.
    """
    if mounts is None:
        try:
            mounts = MOUNTS.read_bytes()
        except OSError:
            return True
    path, found, length = os.fsencode(os.path.realpath(folder)), b"", -1
    for line in mounts.splitlines():
        _device, _, rest = line.partition(b" ")
        name, _, rest = rest.partition(b" ")
        place = _ESCAPED.sub(lambda each: bytes([int(each[1], 8)]), name)
        is_above = path == place or path.startswith(place.rstrip(b"/") + b"/")
        if is_above and len(place) >= length:  # of two on one place the later one is seen
            found, length = rest.partition(b" ")[0], len(place)
    return not found or found.decode(errors="replace") in LOCAL_TYPES

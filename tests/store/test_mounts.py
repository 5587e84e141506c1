"""Whose disk a folder is on, as the system's list of mounts says it."""

from pathlib import Path

import pytest

from cometbatch.store import mounts
from cometbatch.store.mounts import is_local

MOUNTS = b"""/dev/vda / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
tmpfs /home/fast tmpfs rw 0 0
bucket /srv/with\\040blank fuse.s3fs rw 0 0
/dev/vdb /twice xfs rw 0 0
host:/x /twice nfs rw 0 0
strange
"""


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("/", True),
        ("/work", True),
        ("/home", False),
        ("/home/me/run", False),
        ("/homework", True),
        ("/home/fast/run", True),
        ("/home/faster", False),
        ("/srv/with blank/run", False),
        ("/srv/with", True),
        ("/twice/run", False),
    ],
)
def test_a_folder_is_on_what_is_mounted_nearest_above_it(folder: str, *, expected: bool) -> None:
    """Of two things in one place, the later hides the earlier; names with blanks are escaped."""
    assert is_local(Path(folder), MOUNTS) is expected


@pytest.mark.parametrize("kind", ["9p", "virtiofs", "cifs", "fuse.sshfs", "lustre", "nothing-known"])
def test_what_is_not_known_to_be_a_disk_of_this_machine_may_be_shared(kind: str) -> None:
    """A sync too many is slow; a mark that is lost is money."""
    assert is_local(Path("/run"), f"x / {kind} rw 0 0\n".encode()) is False


def test_a_link_counts_as_what_it_leads_to(tmp_path: Path) -> None:
    """A run directory may be anywhere."""
    (tmp_path / "link").symlink_to("/")
    assert is_local(tmp_path / "link", b"disk / ext4 rw 0 0\nserver %b nfs rw 0 0\n" % bytes(tmp_path)) is True


def test_a_system_that_does_not_tell_has_its_own_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As macOS, which has no such list."""
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "none")
    assert is_local(tmp_path) is True

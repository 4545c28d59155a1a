"""Files: digests, and writes that never leave a partial file."""

import hashlib
import stat

import pytest

from landslide.files import atomic_write, sha256


def test_sha256_equals_hashlib(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"landslide" * 100_000)
    assert sha256(path) == hashlib.sha256(b"landslide" * 100_000).hexdigest()


def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail_halfway() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_its_target_stays(tmp_path):
    target, link = tmp_path / "cached", tmp_path / "a.txt"
    target.write_text("old")
    target.chmod(0o444)
    link.hardlink_to(target)
    with atomic_write(link) as temporary:
        temporary.write_text("new")
    assert (target.read_text(), link.read_text()) == ("old", "new")
    assert stat.S_IMODE(link.stat().st_mode) & 0o200

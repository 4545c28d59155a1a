"""Folders that appear when they are complete."""

import pytest

from landslide.errors import DataError, LockedError
from landslide.tiling.new_folder import new_folder


def test_a_folder_appears_when_it_is_filled(tmp_path):
    with new_folder(tmp_path / "a" / "set") as partial:
        (partial / "file").write_text("content")
        assert not (tmp_path / "a" / "set").exists()
        with pytest.raises(LockedError), new_folder(tmp_path / "a" / "set"):
            pass
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["set"]
    assert (tmp_path / "a" / "set" / "file").read_text() == "content"


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), DataError("wrong", remedy="x"), OSError(28, "No space left on device")]
)
def test_nothing_is_left_of_a_failure(tmp_path, error):
    expected = DataError if isinstance(error, OSError) else type(error)

    def fail():
        with new_folder(tmp_path / "set") as partial:
            (partial / "file").write_text("content")
            raise error

    with pytest.raises(expected) as caught:
        fail()
    assert list(tmp_path.iterdir()) == []
    if isinstance(error, OSError):
        assert "set cannot be written: [Errno 28] No space left on device" in str(caught.value)


def test_what_is_refused_stays(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "notes").write_text("years of work")
    with pytest.raises(DataError, match="not an empty folder"), new_folder(tmp_path / "set"):
        pass
    assert (tmp_path / "set" / "notes").read_text() == "years of work"
    with new_folder(tmp_path / "set", refuse=lambda folder: None):
        pass
    assert list((tmp_path / "set").iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_file_or_a_link_is_no_folder(tmp_path, kind):
    place = tmp_path / "set"
    (tmp_path / "elsewhere").mkdir()
    place.write_text("x") if kind == "file" else place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="not an empty folder"), new_folder(place):
        pass


def test_a_folder_below_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="below cannot be written"), new_folder(tmp_path / "file" / "below"):
        pass

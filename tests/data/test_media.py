"""References to media files: folders, archives, stretches of time, and what cannot be read."""

import io
import tarfile

import numpy as np
import pytest

from transduce.data.media import media_from_fields, media_of, media_row, read_media, root_stamp
from transduce.data.values import BadValueError, Media
from transduce.errors import DataError


def write_tar(path, members: dict[str, bytes], *, link: str | None = None):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        if link is not None:
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(entry)
    return path


def test_a_row_gives_back_the_reference(tmp_path):
    for media in (Media(tmp_path / "ä b.wav"), Media(tmp_path / "x.tar", "t/y.flac", 1.5, None)):
        row = media_row(media, width=7)
        assert row.width == 7
        assert row.data.dtype == np.uint8
        assert media_of(row.data) == media


def test_files_of_folders_and_archives_are_read(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"alone")
    archive = write_tar(tmp_path / "b.tar", {"t/x": b"first", "./t/y": b"second"})
    assert read_media(media_from_fields("a.bin", tmp_path)) == b"alone"
    assert read_media(media_from_fields(str(tmp_path / "a.bin"), tmp_path / "elsewhere")) == b"alone"
    assert read_media(media_from_fields("t/x", archive)) == b"first"
    assert read_media(media_from_fields("t/y", archive)) == b"second"


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "t/../../secret"])
def test_names_that_lead_out_of_an_archive_are_refused(tmp_path, name):
    with pytest.raises(BadValueError, match="leads out"):
        media_from_fields(name, tmp_path / "b.tar")


def test_what_cannot_be_read_says_why(tmp_path):
    (tmp_path / "empty").touch()
    archive = write_tar(tmp_path / "b.tar", {"t/x": b"x" * 2000, "t/empty": b""}, link="t/link")
    for name, root, reason in (
        ("none", tmp_path, "no such file"),
        ("empty", tmp_path, "file is empty"),
        (".", tmp_path, "no such file"),
        ("t/none", archive, "no such member"),
        ("t/empty", archive, "file is empty"),
        ("t/link", archive, "no such member"),
    ):
        with pytest.raises(BadValueError, match=reason):
            read_media(media_from_fields(name, root))


def test_damaged_archives_say_so(tmp_path):
    archive = write_tar(tmp_path / "b.tar", {"t/x": b"x" * 5000})
    archive.write_bytes(archive.read_bytes()[:3000])
    with pytest.raises(BadValueError, match=r"cut off|damaged"):
        read_media(media_from_fields("t/x", archive))
    (tmp_path / "no.tar").write_bytes(b"this is no archive at all")
    with pytest.raises(BadValueError, match="not an uncompressed tar"):
        read_media(media_from_fields("t/x", tmp_path / "no.tar"))


def test_the_stamp_of_a_root_changes_with_it(tmp_path):
    archive = write_tar(tmp_path / "b.tar", {"x": b"1"})
    before = root_stamp(archive)
    write_tar(archive, {"x": b"1" * 20_000})
    assert root_stamp(archive) != before
    with pytest.raises(DataError, match="cannot be read"):
        root_stamp(tmp_path / "missing")

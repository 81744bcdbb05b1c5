import errno
import os
from pathlib import Path

import pytest

from ckpt.errors import FormatError, RefError
from ckpt.io.sources import CHUNK, FileSource


@pytest.mark.parametrize("in_kernel", [True, False])
def test_source_copies_a_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_kernel: bool
) -> None:
    data = os.urandom(3 * CHUNK + 17)
    (tmp_path / "source").write_bytes(data)
    if not in_kernel:

        def refuse(*_: object) -> int:
            raise OSError(errno.EXDEV, "no")

        monkeypatch.setattr(os, "copy_file_range", refuse)
    with FileSource(tmp_path / "source") as source, (tmp_path / "out").open("wb") as out:
        out.write(b"head")
        source.copy(5, 2 * CHUNK, out)
        out.write(b"tail")
        source.copy(0, 0, out)
        source.copy(len(data) - 3, 3, out)
    expected = b"head" + data[5 : 5 + 2 * CHUNK] + b"tail" + data[-3:]
    assert (tmp_path / "out").read_bytes() == expected


def test_source_that_ends_early_is_refused(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"abc")
    with FileSource(tmp_path / "source") as source, (tmp_path / "out").open("wb") as out:
        with pytest.raises(FormatError, match="ends at byte 3, expected 9"):
            source.read(1, 8)
        with pytest.raises(FormatError, match="ends at byte 3, expected 9"):
            source.copy(1, 8, out)


def test_source_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, error in (("pipe", FormatError), ("loop", RefError), (".", FormatError)):
        with pytest.raises(error):
            FileSource(tmp_path / name)
    with pytest.raises(FormatError, match="not a regular file"):
        FileSource(Path("/dev/zero"))

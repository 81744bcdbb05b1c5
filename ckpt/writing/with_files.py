"""Write a checkpoint and its side files into one folder, which appears whole."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ckpt.errors import DiskError, UsageError
from ckpt.io.files import write_folder
from ckpt.refs import SUFFIXES
from ckpt.side_files import Found, expect_names, write_files
from ckpt.writing.written import Written

_SEVERAL = ".weights"  # where a checkpoint of several files is written first


def is_file_name(out: Path, names: Sequence[str]) -> bool:
    """Whether `out` can only be one file, by its suffix: a known one, or that of the only file."""
    own = {Path(name).suffix.lower() for name in names} if len(names) == 1 else set()
    return bool(out.suffix) and out.suffix.lower() in {*SUFFIXES, *own}


def write_with_files(
    write: Callable[[Path], Written],
    out: Path,
    found: Found,
    *,
    names: Sequence[str],
    as_folder: bool,
) -> Written:
    """Write a checkpoint to `out`, with its side files if that is a folder.

    Args:
        write: Writes the checkpoint to a path: one file, or several into a folder of that name.
        out: The file or new folder.
        found: What is written beside it, and what is left out.
        names: The names of the checkpoint's own files.
        as_folder: Whether `out` is a folder; if not, the side files are left out.

    Raises:
        UsageError: `out` exists, or a side file and the checkpoint cannot share a folder.
        DiskError: A file does not read back as it was written.
    """
    files = found.files
    if not as_folder:
        written, count = write(out), len(files)
        left = (f"{count:,} side file{'s' * (count != 1)}",) if files else ()
        return replace(written, left_out=(*written.left_out, *left))
    if len(names) > 1 and not files:
        written = write(out)
        return replace(written, left_out=(*written.left_out, *found.left))

    def check(folder: Path) -> None:
        for file in files:
            if (size := (folder / file.name).stat().st_size) != file.nbytes:
                raise DiskError(f"{out / file.name}: {size:,} bytes, expected {file.nbytes:,}")

    with write_folder(out, check=check) as folder:
        written = write(folder / (names[0] if len(names) == 1 else _SEVERAL))
        if len(names) > 1:
            _move_up(folder / _SEVERAL)
        own = sorted(path.name for path in folder.iterdir())
        try:
            expect_names([*own, *(file.name for file in files)])
        except ValueError as error:
            raise UsageError(f"{out}: {error}") from error
        nbytes = write_files(files, folder)
    count = written.files + len(files)
    all_left = (*written.left_out, *found.left)
    return replace(written, path=out, size=written.size + nbytes, files=count, left_out=all_left)


def _move_up(folder: Path) -> None:
    """Move the files of a folder into the one above, and remove it."""
    for path in sorted(folder.iterdir()):
        path.rename(folder.parent / path.name)
    folder.rmdir()

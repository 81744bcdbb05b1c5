"""Repair a file: end an interrupted in-place rename, or write a malformed file as it should be.

`ckpt verify --repair` repairs registries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ckpt.errors import FormatError, RefError, UsageError
from ckpt.formats import nearly_safetensors, open_checkpoint, safetensors
from ckpt.formats.paths import open_path
from ckpt.io.journal import recover
from ckpt.printed import Printed
from ckpt.writing.checkpoint import write_pieces


@dataclass(frozen=True, slots=True, repr=False)
class Repaired(Printed):
    """The state of a file after a repair.

    Attributes:
        path: The file.
        restored: Whether its old header was restored; False if it was whole already.
        had_journal: Whether a journal was beside it, which was removed.
        out: The new file; None if none was written.
        changes: How the new file differs from the old one, a few words each.
    """

    VIEW: ClassVar = "ckpt.show.repair:repaired_text"

    path: Path
    restored: bool = False
    had_journal: bool = False
    out: Path | None = None
    changes: Sequence[str] = ()


def repair(
    path: Path | str, out: Path | str | None = None, *, replace_out: bool = False
) -> Repaired:
    """Restore the header that a safetensors file had before an interrupted in-place rename.

    Args:
        path: The file.
        out: Write to this path what a safetensors file that the format does not allow, such as one
            with bytes after its last tensor, was meant to be; `path` is not touched.
        replace_out: Whether an existing file is replaced.

    Raises:
        RefError: There is no such file.
        ConflictError: Another process is renaming it in place.
        IntegrityError: The journal beside it is not its own, or not one of its owner.
        FormatError: The file cannot be read, nor be read in one way only.
    """
    path = Path(path)
    if not path.is_file():
        raise RefError(f"{path}: no such file")
    if out is not None:
        return _mended(path, Path(out), replace_out=replace_out)
    restored = recover(path, is_start=safetensors.is_start)
    with open_path(path) as source:
        open_checkpoint(source)
    return Repaired(path, bool(restored), restored is not None)


def _mended(path: Path, out: Path, *, replace_out: bool) -> Repaired:
    if out.exists() and out.samefile(path):
        raise UsageError(f"{out}: a repair does not replace its own source; name another file")
    with open_path(path) as source:
        if len(source.parts) > 1 or not safetensors.recognises(
            source.read(0, min(64, source.size))
        ):
            raise FormatError(f"{path}: not a safetensors file; -o mends only those")
        mended = nearly_safetensors.mend(source)
        if not mended.changes:
            open_checkpoint(source)
            return Repaired(path)
        write_pieces(mended.layout, mended.entries, source, out, replace_out=replace_out)
    return Repaired(path, out=out, changes=mended.changes)

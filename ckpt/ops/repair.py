"""Repair a file whose in-place rename was interrupted: restore its old header.

`ckpt verify --repair` repairs registries.
"""

from dataclasses import dataclass
from pathlib import Path

from ckpt.errors import RefError
from ckpt.formats import safetensors
from ckpt.io.journal import recover


@dataclass(frozen=True, slots=True)
class Repaired:
    """The state of a file after a repair.

    Attributes:
        path: The file.
        restored: Whether its old header was restored; False if it was whole already.
        had_journal: Whether a journal was beside it, which was removed.
    """

    path: Path
    restored: bool
    had_journal: bool


def repair(path: Path | str) -> Repaired:
    """Restore the header that a safetensors file had before an interrupted in-place rename.

    Raises:
        RefError: There is no such file.
        ConflictError: Another process is renaming it in place.
        IntegrityError: The journal beside it is not its own, or not one of its owner.
    """
    path = Path(path)
    if not path.is_file():
        raise RefError(f"{path}: no such file")
    restored = recover(path, is_start=safetensors.is_start)
    return Repaired(path, bool(restored), restored is not None)

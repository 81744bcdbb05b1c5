"""Write the files of a site into a folder, which appears whole.

A folder that a site was written to before is replaced; one with anything else in it is refused.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ckpt.errors import IntegrityError, UsageError
from ckpt.io.documents import strict_json
from ckpt.io.durable import sync_file, sync_folder
from ckpt.io.files import disk_errors, read_plain, write_folder
from ckpt.io.rights import Rights, restrict

LIST = "ckpt-site.json"  # tells that a folder is a site, and lists its other files
_MOST_BYTES = 100_000_000  # of that list


@dataclass(frozen=True, slots=True)
class WrittenSite:
    """A site on the disk: its folder, and the number and bytes of its files."""

    path: Path
    files: int
    size: int

    @property
    def start(self) -> Path:
        """The page to begin with."""
        return self.path / "index.html"


def write_site(files: Iterable[tuple[str, str]], out: Path | str, *, rights: Rights) -> WrittenSite:
    """Write the files of a site.

    Args:
        files: Their names and texts.
        out: The folder: a new one, an empty one, or one that this function wrote.
        rights: Who may read them.

    Raises:
        UsageError: The folder holds other files, or is not a folder.
        DiskError: The system refused a call; nothing was changed.
    """
    path = Path(os.path.abspath(out))  # noqa: PTH100 - links are not followed
    _expect_own(path)
    names, nbytes = [], 0
    with write_folder(path, check=lambda _: None, replace=True) as folder, disk_errors(path):
        for name, text in files:
            nbytes += _write(folder / name, text, rights)
            names.append(name)
        _write(folder / LIST, json.dumps({"files": sorted(names)}, indent=0), rights)
        for made in {(folder / name).parent for name in names}:
            sync_folder(made)
    return WrittenSite(Path(out), len(names), nbytes)


def _write(path: Path, text: str, rights: Rights) -> int:
    data = text.encode("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        restrict(file.fileno(), rights)
        file.write(data)
        sync_file(file)
    return len(data)


def _expect_own(path: Path) -> None:
    """Refuse to replace anything that is not a site, whole or in part."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir():
        raise UsageError(f"{path}: not a folder", hint="name another one with -o")
    with disk_errors(path):
        found = {
            str(Path(folder, name).relative_to(path))
            for folder, _, names in os.walk(path)
            for name in names
        }
    if others := sorted(found - {LIST} - _listed(path)):
        names = ", ".join(others[:3]) + (f" and {len(others) - 3:,} more" if others[3:] else "")
        raise UsageError(
            f"{path}: holds files that ckpt site did not write: {names}",
            hint="name a new folder with -o",
        )


def _listed(path: Path) -> set[str]:
    """The files that the site in a folder consists of; none if there is no site."""
    try:
        document = strict_json.parse(read_plain(path / LIST, most=_MOST_BYTES).decode("utf-8"))
        return {name for name in document["files"] if isinstance(name, str)}
    except (OSError, IntegrityError, ValueError, KeyError, TypeError):
        return set()

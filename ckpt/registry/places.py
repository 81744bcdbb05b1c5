"""Where a registry is, and whether it may be used: found like `.git`, or named.

Law: a registry of another user is used only if its folder was named, or is listed as trusted.
"""

import os
from pathlib import Path
from shlex import quote

from ckpt.errors import MissingFileError, UsageError
from ckpt.io import digest

FILE_NAME = "registry.json"
SAFE = "CKPT_SAFE_REGISTRIES"  # folders, separated like those of PATH


def locate(folder: Path | str | None) -> tuple[Path, bool]:
    """The folder of a registry, and whether it was named, not found."""
    chosen = folder or os.environ.get("CKPT_REGISTRY")
    if chosen is None:
        here = Path.cwd()
        return find_registry(here) or here, False
    path = Path(chosen)
    if path.name == FILE_NAME:
        path = path.parent
    if not path.is_dir():
        raise MissingFileError(f"{path}: no such folder", hint="name the folder of a registry")
    return path, True


def find_registry(start: Path) -> Path | None:
    """The nearest folder from `start` upwards that holds a registry, even one without its index."""
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file() or holds_versions(folder):
            return folder
    return None


def holds_versions(folder: Path) -> bool:
    """Whether versions are stored in a folder, whatever became of its index."""
    return next((folder / ".ckpt" / "manifests").glob("??/*"), None) is not None


def seen_file(folder: Path) -> Path | None:
    """The file of `ckpt.registry.seen`: beside git's own files; None if there is no work tree."""
    folder = folder.absolute()
    for top in (folder, *folder.parents):
        git = top / ".git"
        if git.is_file():  # of a linked work tree
            git = top / git.read_text("utf-8", "replace").removeprefix("gitdir: ").strip()
        if git.is_dir():
            place = digest.of_bytes(str(folder.relative_to(top)).encode("utf-8", "replace"))
            return git / f"ckpt-seen-{place[-8:]}"
    return None


def is_listed(folder: Path) -> bool:
    """Whether the user trusts a registry whoever owns it, and wherever its `.ckpt` leads."""
    listed = os.environ.get(SAFE, "").split(os.pathsep)
    return any(
        path == "*" or (path and Path(path).resolve() == folder.resolve()) for path in listed
    )


def expect_own(folder: Path) -> None:
    """Refuse a registry of another user.

    Raises:
        UsageError: A file of it belongs to somebody else.
    """
    for path in (folder / FILE_NAME, folder / ".ckpt"):
        owner = path.lstat().st_uid if os.path.lexists(path) else os.geteuid()
        if owner != os.geteuid():
            raise UsageError(
                f"{path}: belongs to another user (uid {owner}), so this registry is not used",
                hint=f"--registry {quote(str(folder))}  uses it once;\n"
                f"export {SAFE}={quote(str(folder))}  uses it always",
            )

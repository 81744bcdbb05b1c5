"""Versions that git's history has and the index does not, although their manifests are stored.

A merge that went wrong, a version of another branch, or an edit. Law: a version that was removed by
`ckpt rm`, as the newest index that names it says, is not one of them.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ckpt.errors import IndexDamageError, UsageError
from ckpt.io.git import blobs, git
from ckpt.registry.index import Index
from ckpt.registry.index_file import read_index
from ckpt.registry.places import FILE_NAME
from ckpt.registry.registry import Registry
from ckpt.registry.version import Version

_MANIFEST = re.compile(rb'"manifest": ?"(sha256:[0-9a-f]{64})"')


@dataclass(frozen=True, slots=True)
class Lost:
    """A version, with its line and number in an index of git's history.

    Attributes:
        version: The version.
        found_in: That index: the object name of the file, for ``git show``.
    """

    version: Version
    found_in: str


def lost_versions(registry: Registry) -> tuple[Lost, ...]:
    """The versions that only git's history has, by ref; none where git does not know the index."""
    known = {name for version in registry.index().every_version() for name in version.manifests}
    stored = {each.digest for each in registry.store.manifests()}
    missing = stored - known
    if missing:  # by gc, on purpose
        entries = registry.index_file.reflog.entries()
        missing -= {name for entry in entries for name in entry.deleted}
    found = _found(registry.folder, missing) if missing else ()
    return tuple(sorted(found, key=lambda lost: (lost.version.model, lost.version.number)))


def _found(folder: Path, missing: set[str]) -> Iterator[Lost]:
    try:
        tips = git(folder, "for-each-ref", "--format=%(objectname)").decode().split()
        history = git(folder, *_HISTORY, "--", FILE_NAME).decode("utf-8", "replace")
    except UsageError:  # not a repository, or one without commits
        return
    names = [f"{tip}:./{FILE_NAME}" for tip in tips]
    changes = (line.split()[3] for line in history.splitlines() if line.startswith(":"))
    for is_tip, documents in ((True, dict.fromkeys(names)), (False, dict.fromkeys(changes))):
        for name, index in _naming(folder, documents, missing):
            for version in index.every_version():
                is_removed = version.number in index.models[version.model].removed
                if version.manifest in missing and not (is_tip and is_removed):
                    missing.remove(version.manifest)
                    if not is_removed:
                        yield Lost(version, name)


# All contents that the file ever had, newest first: merges count for each of their parents, and
# commits that no branch has any more count too.
_HISTORY = (
    *("log", "--all", "--reflog", "--full-history", "-m", "--root"),
    *("--raw", "--no-abbrev", "--format="),
)


def _naming(folder: Path, names: Iterable[str], missing: set[str]) -> Iterator[tuple[str, Index]]:
    """The indexes that name one of the manifests, until none is missing."""
    for name, document in blobs(folder, names):
        if not missing:
            return
        if missing & {found.decode() for found in _MANIFEST.findall(document)}:
            try:
                yield name, read_index(document, name=name)
            except IndexDamageError:
                continue  # with conflict markers; its parents have both sides

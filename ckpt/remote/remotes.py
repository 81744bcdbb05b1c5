"""The remotes of a registry: `.ckpt/remotes.json`, which git may keep for every clone.

`.ckpt/remotes/NAME/index.json`, which belongs to this machine alone, is the index of the remote as
it was last seen here: the common ancestor of the next merge.
"""

import json
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from ckpt.errors import IntegrityError, RefError, UsageError
from ckpt.io.documents import strict_json
from ckpt.io.documents.typed_json import Form, expect
from ckpt.io.durable import make_folder
from ckpt.io.files import disk_errors, read_plain, unlinked, write_whole
from ckpt.io.lock import exclusive_lock
from ckpt.refs import expect_name, is_name
from ckpt.registry.index import Index
from ckpt.registry.index_file import MOST_BYTES, read_index
from ckpt.registry.registry import REMOTES, Registry
from ckpt.remote.address import checked_url, open_bucket
from ckpt.remote.bucket import Bucket

Authority = Literal["bucket", "git"]
AUTHORITIES: tuple[Authority, ...] = ("bucket", "git")
DEFAULT = "origin"
SCHEMA = 1
_MOST_BYTES = 1 << 20
_SEEN, _RESERVED = "index.json", "reserved.json"


@dataclass(frozen=True, slots=True)
class Remote:
    """One remote.

    Attributes:
        name: ``origin``.
        url: Without credentials.
        index: Who keeps the index: ``bucket`` or ``git``.
        unsafe: The conditions that the bucket was found to ignore; mostly none.
    """

    name: str
    url: str
    index: Authority
    unsafe: tuple[str, ...] = ()

    def bucket(self) -> Bucket:
        """Its bucket; no request is sent yet."""
        return open_bucket(self.url)


def _is_url(url: str) -> bool:
    try:
        return checked_url(url) == url
    except UsageError:
        return False


class _Line(TypedDict):
    url: Annotated[str, Form("the URL of a remote without credentials", _is_url)]
    index: Annotated[str, Form("bucket or git", AUTHORITIES.__contains__)]
    unsafe: list[str]


class _Document(TypedDict):
    schema: Annotated[int, Form(f"{SCHEMA}", lambda schema: schema == SCHEMA)]
    remotes: dict[Annotated[str, Form("a name", is_name)], _Line]


def read_remotes(registry: Registry) -> dict[str, Remote]:
    """The remotes of a registry, by name, in the order in which they were added.

    Raises:
        IntegrityError: The file is damaged, or of a newer schema.
    """
    path = unlinked(registry.store.root) / REMOTES
    try:
        document: Any = strict_json.parse(read_plain(path, most=_MOST_BYTES).decode("utf-8"))
        expect(document, _Document, name="")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise IntegrityError(
            f"{path}: not a list of remotes: {error}", hint="remove it, and  ckpt remote add  again"
        ) from error
    return {
        name: Remote(name, line["url"], line["index"], tuple(line["unsafe"]))
        for name, line in document["remotes"].items()
    }


def find_remote(registry: Registry, name: str | None = None) -> Remote:
    """The remote of a name; None for ``origin``, or the only one.

    Raises:
        RefError: There is none.
    """
    remotes = read_remotes(registry)
    if name is None and len(remotes) == 1:
        return next(iter(remotes.values()))
    if (wanted := name or DEFAULT) in remotes:
        return remotes[wanted]
    if not remotes:
        registry.expect_there()
    known = f"it has {', '.join(remotes)}" if remotes else None
    what = f"no remote {wanted!r}" if name or remotes else "no remote"
    raise RefError(
        f"{registry.folder}: {what}", hint=known or "add one:  ckpt remote add origin URL"
    )


def write_remotes(registry: Registry, remotes: Mapping[str, Remote]) -> None:
    """Replace the list of remotes."""
    lines: dict[str, Any] = {}
    for remote in remotes.values():
        lines[expect_name(remote.name)] = asdict(remote)
        del lines[remote.name]["name"]
    document = {"schema": SCHEMA, "remotes": lines}
    make_folder(unlinked(registry.store.root))
    registry.ignore_own_files()
    with write_whole(registry.store.root / REMOTES, replace=True, shared=True) as out:
        out.write(json.dumps(document, indent=2).encode("ascii") + b"\n")


def last_seen(registry: Registry, remote: Remote) -> Index:
    """The index of a remote as it was last seen; an empty one if it never was."""
    return _noted(registry, remote, _SEEN)


def note_seen(registry: Registry, remote: Remote, index: Index) -> None:
    """Keep the index of a remote for the next merge, unless a later one was seen."""
    if index.serial >= last_seen(registry, remote).serial:
        _note(registry, remote, _SEEN, index)


def merging(registry: Registry, remote: Remote) -> AbstractContextManager[None]:
    """Hold this while the index of a remote is merged and noted."""
    return exclusive_lock(_folder(registry, remote.name) / "lock")


def reserved_numbers(registry: Registry, remote: Remote) -> Index:
    """Versions of this registry whose numbers nobody else can have got from a remote.

    They were left out by a push of a version with a higher number.
    """
    return _noted(registry, remote, _RESERVED)


def reserve_numbers(registry: Registry, remote: Remote, index: Index) -> None:
    """Keep the versions that a push left out."""
    if index.models or reserved_numbers(registry, remote).models:
        _note(registry, remote, _RESERVED, index)


def forget_seen(registry: Registry, name: str) -> None:
    """Remove what was noted of a remote."""
    folder = _folder(registry, name)
    with disk_errors(folder), suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _noted(registry: Registry, remote: Remote, name: str) -> Index:
    path = _folder(registry, remote.name) / name
    try:
        return read_index(read_plain(path, most=MOST_BYTES), name=str(path))
    except (FileNotFoundError, NotADirectoryError):
        return Index()


def _note(registry: Registry, remote: Remote, name: str, index: Index) -> None:
    folder = _folder(registry, remote.name)
    make_folder(folder)
    with write_whole(folder / name, replace=True, shared=True) as out:
        out.write(index.to_text().encode("utf-8"))


def _folder(registry: Registry, name: str) -> Path:
    return unlinked(registry.store.root, "remotes", expect_name(name))

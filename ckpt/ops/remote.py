"""Remotes of a registry: add one after a probe, list, remove and check them."""

from dataclasses import dataclass

from ckpt.errors import RemoteError, UsageError
from ckpt.io.git import asked, in_work_tree
from ckpt.refs import expect_name
from ckpt.registry.index import Index
from ckpt.registry.places import FILE_NAME
from ckpt.registry.registry import Registry
from ckpt.remote.address import checked_url
from ckpt.remote.bucket import Bucket
from ckpt.remote.merging import PATH, read_theirs
from ckpt.remote.objects.parcels import KINDS, parcels_of, path_of
from ckpt.remote.probe import ignored_conditions
from ckpt.remote.remotes import (
    Authority,
    Remote,
    find_remote,
    forget_seen,
    read_remotes,
    write_remotes,
)

_AUTHORITY = "ckpt/authority"


@dataclass(frozen=True, slots=True)
class RemoteChecked:
    """Whether a remote has what the index names.

    Attributes:
        remote: Its name.
        versions: The number of versions that were looked for.
        missing: Each version with what the remote lacks of it, or has in another size.
    """

    remote: str
    versions: int
    missing: tuple[tuple[str, str], ...]


def add_remote(
    name: str,
    url: str,
    *,
    index: Authority | None = None,
    unsafe: bool = False,
    registry: Registry | None = None,
) -> Remote:
    """Add a remote, after a probe of whether it keeps concurrent writers apart.

    Args:
        name: Its name; commands without one mean ``origin``, or the only one.
        url: ``s3://BUCKET/FOLDER``, ``gs://…``, ``az://…``, or a folder.
        index: Who keeps the index: ``bucket``, or ``git``, which then alone brings it to others;
            None for git if it tracks `registry.json`, else the bucket.
        unsafe: Whether a bucket that ignores conditions is added all the same.
        registry: The registry; created if there is none.

    Raises:
        UsageError: The URL has credentials, or the remote is of another registry or authority.
        RemoteError: It cannot be reached, or ignores conditions.
    """
    registry = registry or Registry()
    remotes = read_remotes(registry)
    if expect_name(name) in remotes:
        raise UsageError(
            f"{name}: already a remote, {remotes[name].url}", hint=f"ckpt remote rm {name}"
        )
    remote = Remote(name, checked_url(url), index or _authority(registry))
    bucket = remote.bucket()
    ignored = ignored_conditions(bucket)
    if ignored and not unsafe:
        raise RemoteError(
            f"{remote.url}: ignores conditions ({', '.join(ignored)}), so of two people who push "
            "at the same time, one loses a version",
            hint="use another place; if only one person ever pushes,  --unsafe  adds it",
        )
    theirs = _expect_authority(registry, remote, bucket)
    if not registry.exists:
        registry.create(theirs.id if theirs else "")
    remote = Remote(name, remote.url, remote.index, ignored)
    forget_seen(registry, name)
    write_remotes(registry, {**remotes, name: remote})
    return remote


def remotes(*, registry: Registry | None = None) -> tuple[Remote, ...]:
    """The remotes of a registry."""
    return tuple(read_remotes(registry or Registry()).values())


def remove_remote(name: str, *, registry: Registry | None = None) -> Remote:
    """Forget a remote; nothing on it is changed.

    Raises:
        RefError: There is none of this name.
    """
    registry = registry or Registry()
    remote = find_remote(registry, name)
    kept = {each.name: each for each in remotes(registry=registry) if each.name != name}
    write_remotes(registry, kept)
    forget_seen(registry, name)
    return remote


def check_remote(name: str | None = None, *, registry: Registry | None = None) -> RemoteChecked:
    """Tell whether a remote has every manifest and object that the index names, by their sizes.

    Removed versions do not count. No object is read.
    """
    registry = registry or Registry()
    remote = find_remote(registry, name)
    bucket = remote.bucket()
    sizes = {each.path: each.nbytes for kind in KINDS for each in bucket.list(kind)}
    versions = registry.versions()
    missing = []
    for version in versions:
        if path_of(version.manifest, "manifests") not in sizes:
            missing.append((version.ref, "manifest"))
        for parcel in parcels_of(registry.manifest(version).objects()):
            if sizes.get(parcel.path) == parcel.nbytes:
                continue
            for digest, (nbytes, what) in parcel.objects.items():
                if sizes.get(path_of(digest)) != nbytes:
                    missing.append((version.ref, what))
    return RemoteChecked(remote.name, len(versions), tuple(missing))


def _authority(registry: Registry) -> Authority:
    """Who keeps the index: git, if it tracks it."""
    if not (registry.exists and in_work_tree(registry.folder)):
        return "bucket"
    return "git" if asked(registry.folder, "ls-files", "--", FILE_NAME) else "bucket"


def _expect_authority(registry: Registry, remote: Remote, bucket: Bucket) -> Index | None:
    """Write down who keeps the index of a remote, once for all; the index there, if it has one."""
    data = f"{remote.index}\n".encode()
    if not bucket.put_new(_AUTHORITY, [data], len(data)):
        found = bucket.get(_AUTHORITY, most=100)
        said = found[0].decode("utf-8", "replace").strip() if found else ""
        if said and said != remote.index:
            raise UsageError(
                f"{remote.url}: its index is kept by {said[:20]!r}, as somebody said before",
                hint=f"--index {said[:20]}" if said in ("bucket", "git") else None,
            )
    theirs = read_theirs(remote, bucket)
    if theirs is None:
        return None
    if remote.index == "git":
        raise UsageError(
            f"{remote.url}/{PATH}: exists, so git is not the only one that keeps the index",
            hint="--index bucket",
        )
    own = registry.index().id
    if own and theirs[0].id and own != theirs[0].id:
        raise UsageError(
            f"{remote.url} holds another registry: its id is {theirs[0].id[:8]}, the id here is "
            f"{own[:8]}",
            hint=f"ckpt clone {remote.url} DIR  gets that one;  ckpt copy REF DIR  adds versions "
            "of this one to it",
        )
    return theirs[0]

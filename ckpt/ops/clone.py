"""Clone: a registry of its own for what a remote has."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ckpt.errors import RefError, UsageError
from ckpt.io.files import Told, untold, write_folder
from ckpt.registry.registry import Registry
from ckpt.registry.version import Version
from ckpt.remote.address import checked_url
from ckpt.remote.merging import read_theirs
from ckpt.remote.pulling import fetch_index, receive_versions
from ckpt.remote.remotes import DEFAULT, Remote, write_remotes


@dataclass(frozen=True, slots=True)
class Cloned:
    """A new registry.

    Attributes:
        folder: Its folder.
        url: The URL of its remote, ``origin``.
        versions: Its versions.
        nbytes: Bytes of the objects that were fetched.
    """

    folder: Path
    url: str
    versions: tuple[Version, ...]
    nbytes: int


def clone(
    url: str, folder: Path | str | None = None, *, every: bool = False, told: Told = untold
) -> Cloned:
    """Make a registry of what a remote has: its index and manifests, tensors only if asked for.

    Args:
        url: The URL of the remote.
        folder: A new folder; None for one called like the last part of the URL.
        every: Whether to get the objects of all versions.
        told: Called with the bytes received and in all.

    Raises:
        RefError: There is no registry at the URL.
        UsageError: The folder exists.
    """
    remote = Remote(DEFAULT, checked_url(url), "bucket")
    path = Path(folder or PurePosixPath(remote.url).name)
    bucket = remote.bucket()
    theirs = read_theirs(remote, bucket)
    if theirs is None:
        raise RefError(
            f"{remote.url}: no registry there",
            hint="if git keeps its index:  git clone …  and, in the clone,  ckpt pull",
        )
    if path.exists():
        raise UsageError(f"{path}: already exists", hint="name a new folder after the URL")
    with write_folder(path, check=lambda _: None) as temporary:
        registry = Registry(temporary)
        registry.create(theirs[0].id)
        write_remotes(registry, {remote.name: remote})
        fetch_index(registry, remote)
        versions = registry.versions()
        got = receive_versions(registry, remote, versions if every else (), told=told)
    return Cloned(path, remote.url, tuple(versions), sum(got.values()))

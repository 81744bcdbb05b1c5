"""Pull: fetch, then get the objects of versions."""

from ckpt.io.files import Told, untold
from ckpt.registry.index import Index
from ckpt.registry.registry import Registry
from ckpt.registry.version import Version
from ckpt.remote.oci.reference import expect_no_artifact
from ckpt.remote.pulling import Pulled, fetch_index, receive_versions
from ckpt.remote.remotes import find_remote
from ckpt.rules.patterns import Pattern


def pull(
    *refs: str,
    remote: str | None = None,
    keys: str | None = None,
    every: bool = False,
    registry: Registry | None = None,
    told: Told = untold,
) -> Pulled:
    """Fetch, then get the objects of versions that are not here; every byte is verified.

    Args:
        *refs: The versions; none for the latest version of each model and those with an alias.
        remote: Its name; None for ``origin``, or the only one.
        keys: A regular expression: get only the tensors whose keys it matches somewhere.
        every: Whether to get all versions.
        registry: The registry.
        told: Called with the bytes received and in all.

    Raises:
        RefError: A ref names no version, after the fetch.
        ConflictError: Both sides moved an alias.
        IntegrityError: An object is missing or damaged on the remote.
    """
    expect_no_artifact(refs, "ckpt import oci://HOST/TEAM/MODEL:TAG  makes a version of it")
    registry = registry or Registry()
    found = find_remote(registry, remote)
    pattern = None if keys is None else Pattern(keys, name=f"--keys {keys!r}")
    fetched = fetch_index(registry, found)
    if every:
        versions = registry.versions()
    elif refs:
        versions = [registry.version(ref) for ref in refs]
    else:
        versions = _usual(registry.index())
    wants = None if pattern is None else lambda key: pattern.search(key) is not None
    got = receive_versions(registry, found, versions, wants, told)
    return Pulled(found.name, tuple(versions), len(got), sum(got.values()), fetched)


def _usual(index: Index) -> list[Version]:
    """The latest version of each model, and those with an alias."""
    found = []
    for model in index.models.values():
        numbers = {max(model.versions, default=0), *model.aliases.values()}
        found += [model.versions[number] for number in sorted(numbers) if number in model.versions]
    return found

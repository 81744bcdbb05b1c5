"""What a shared store must keep: the objects of all its registries, on all their branches.

Law: nothing counts as unneeded unless every registry that uses the store could be read.
"""

from collections.abc import Iterator
from pathlib import Path

from ckpt.errors import CkptError, IntegrityError, UsageError
from ckpt.io.git import blobs, git, in_work_tree
from ckpt.registry.manifest import Manifest
from ckpt.registry.needs.lost import lost_versions
from ckpt.registry.needs.needed import needed
from ckpt.registry.registry import Registry
from ckpt.registry.store.shared import SharedStore


def needed_of_shared(registry: Registry, shared: SharedStore) -> set[str]:
    """The digests of all objects that other registries, or branches not checked out, need.

    Raises:
        IntegrityError: A registry that uses the store cannot be read; the message names it.
    """
    needed = set(_of_branches(registry.folder))
    for file, folder in shared.users():
        if file == shared.user:
            continue
        try:
            needed |= {*_of_index(folder), *_of_branches(folder)}
        except (CkptError, OSError) as error:
            raise IntegrityError(
                f"{shared.path}: {folder} uses it too, and cannot be read: {error}",
                hint=f"nothing was removed; if that registry is gone for good, remove {file}",
            ) from error
    return needed


def _of_index(folder: Path) -> Iterator[str]:
    other = Registry(folder)
    if not other.exists:
        raise UsageError(f"{folder}: no registry")
    needs = needed(other, other.index(), other.store.manifests(), lost_versions(other))
    for name in {need.manifest for need in needs}:
        yield from other.store.manifest(name).objects()


def _of_branches(folder: Path) -> Iterator[str]:
    """Of the manifests in the trees of all branches, tags and remote branches.

    Git takes the manifests of a branch away with it when another one is checked out.
    """
    try:
        tips = git(folder, "for-each-ref", "--format=%(objectname)").decode().split()
    except UsageError:
        if in_work_tree(folder):  # whose branches git does not tell: missing, or another user's
            raise
        return
    trees = (git(folder, "ls-tree", "-r", tip, "--", ".ckpt/manifests") for tip in {*tips})
    lines = {line for tree in trees for line in tree.decode("utf-8", "replace").splitlines()}
    for _, data in blobs(folder, sorted({line.split()[2] for line in lines})):
        yield from Manifest.from_bytes(data).objects()

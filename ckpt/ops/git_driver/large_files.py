"""Where the objects of a registry belong that git should not copy: Git LFS, or a shared folder.

Law of `use_store`: interrupted at any point, every object can still be read.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from ckpt.errors import IntegrityError, UsageError
from ckpt.io.git import git
from ckpt.registry.registry import Registry
from ckpt.registry.store.listing import StoredObject
from ckpt.registry.store.objects import ObjectStore
from ckpt.registry.store.shared import PLACE, SharedStore, name_store, shared_store

LFS_ATTRIBUTES = {".ckpt/objects/**": ("filter=lfs", "diff=lfs", "merge=lfs", "-text")}


@dataclass(frozen=True, slots=True)
class StoreUse:
    """What `use_store` did.

    Attributes:
        path: The folder of the objects.
        moved: Objects that were moved there.
        nbytes: Their bytes.
        damaged: Objects that are damaged, and stay where they are.
    """

    path: Path
    moved: int = 0
    nbytes: int = 0
    damaged: int = 0


MIGRATE = "git lfs migrate import --everything --include='.ckpt/objects/**'"


def set_up_lfs(registry: Registry) -> int:
    """Set up Git LFS in this clone; returns how many objects git has committed without it.

    Raises:
        UsageError: Git LFS is not installed, or the folder is not in a git repository.
    """
    folder = registry.folder
    git(folder, "rev-parse", "--show-prefix")
    try:
        git(folder, "lfs", "version")
    except UsageError as error:
        raise UsageError(
            "git-lfs is not installed, or not on the PATH",
            hint="https://git-lfs.com has it;  apt-get install git-lfs  or  brew install git-lfs",
        ) from error
    git(folder, "lfs", "install", "--local")
    committed = git(folder, "ls-files", "--", ".ckpt/objects").splitlines()
    pointers = git(folder, "lfs", "ls-files", "--name-only", "--include", "*.ckpt/objects/*")
    return max(0, len(committed) - len(pointers.splitlines()))


def use_store(registry: Registry, path: Path) -> StoreUse:
    """Let a registry keep its objects in a folder that others may share, and move them there.

    Raises:
        UsageError: It is in the work tree, holds other things, or the registry uses another one.
    """
    folder, root = registry.folder, registry.store.root
    top = os.fsdecode(git(folder, "rev-parse", "--show-toplevel").rstrip(b"\n"))
    shared = SharedStore(Path(os.path.realpath(path)), folder)
    if shared.path.is_relative_to(os.path.realpath(top)):
        raise UsageError(
            f"{path}: inside of {top}, where git would copy it", hint="name another folder"
        )
    known = shared_store(folder, root)
    if known is not None and known.path != shared.path:
        raise UsageError(
            f"{folder}: its objects are in {known.path}",
            hint=f"export {PLACE}={shared.path}  if that is its place on this machine",
        )
    shared.join()
    own, place = ObjectStore(root), ObjectStore(shared.path)
    with own.collecting(), place.collecting():
        copied, damaged = _copied(own, place)
        if known is None:
            name_store(shared, root)
        own.remove(copied)
    return StoreUse(shared.path, len(copied), sum(each.nbytes for each in copied), damaged)


def _copied(own: ObjectStore, place: ObjectStore) -> tuple[list[StoredObject], int]:
    """The objects of `own` that are good, and in `place` now; and the number of the others."""
    copied, damaged = [], 0
    for each in sorted(own.objects(), key=lambda each: each.path):
        if not each.is_manifest:
            try:
                chunks = own.stream(each.digest, each.nbytes, "object")
                place.put(chunks, own.rights(each.digest, "objects"))
                copied.append(each)
            except IntegrityError:
                damaged += 1
    place.sync()  # before they are removed from `own`
    return copied, damaged

"""What git would have to copy: the objects of a registry in a work tree."""

from collections.abc import Iterable
from os.path import relpath
from pathlib import Path
from shlex import quote

from ckpt.errors import CkptError
from ckpt.io.git import asked, git, in_work_tree, is_ignored
from ckpt.registry.adding import Added
from ckpt.registry.registry import Registry

LARGE_BYTES = 50_000_000  # of objects; from there on it is felt in every clone


def became_large(registry: Registry, added: Added) -> int | None:
    """Bytes of the objects that git would copy into every clone, if this version made them many.

    None unless the objects grew past 50 MB by this version, in a folder that git takes, without
    Git LFS.
    """
    new = added.version.new_bytes if added.new else 0
    if not new or registry.store.shared or not in_work_tree(registry.folder):
        return None
    total = sum(each.nbytes for each in registry.store.objects() if not each.is_manifest)
    if not total - new <= LARGE_BYTES < total:
        return None
    path = f"{registry.store.root.name}/objects/00/0"
    try:
        filtered = git(registry.folder, "check-attr", "filter", path).endswith(b": lfs\n")
        return None if filtered or is_ignored(registry.folder, path) else total
    except CkptError:  # git is not installed, or this is not a work tree
        return None


def tracked(registry: Registry, files: Iterable[Path]) -> frozenset[Path]:
    """The files of a registry that git tracks; none if it cannot be asked."""
    here = registry.folder
    if not in_work_tree(here):
        return frozenset()
    names = asked(here, "ls-files", "-z", "--", relpath(registry.store.root / "objects", here))
    known = {here / name for name in (names or "").split("\0") if name}
    return frozenset(known.intersection(files))


def steps_out_of_git(registry: Registry) -> tuple[str, ...]:
    """Commands, for the current folder, after which git takes no object; none if it takes none."""
    objects = registry.store.root / "objects"
    if registry.store.shared or not in_work_tree(registry.folder):
        return ()
    names = asked(registry.folder, "ls-files", "--", relpath(objects, registry.folder))
    if names is None:
        return ()
    steps = []
    if not is_ignored(registry.folder, relpath(objects / "00" / "0", registry.folder)):
        steps.append(f"echo objects/ >> {quote(relpath(objects.parent / '.gitignore'))}")
    if names:
        steps.append(f"git rm -r -q --cached {quote(relpath(objects))}")
    return tuple(steps)

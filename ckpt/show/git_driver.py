"""The setup of git, and the merge of two indexes with its conflicts."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ckpt.ops.git_driver import CONFIG, Installed
from ckpt.ops.git_driver.large_files import MIGRATE
from ckpt.registry.history.changes import REMOVED, value_text
from ckpt.registry.merge import Conflict, Merged
from ckpt.show.look.fields import fields
from ckpt.show.look.words import count, printable, size

LONG = 80  # characters of a field's value; --json has all of it


def installed_text(installed: Installed) -> str:
    """The configuration that was installed, and the next step."""
    path = printable(str(installed.attributes))
    lines = [f"git config  {name}  set in this clone" for name in CONFIG]
    lines += [f"{line}  added to {path}" for line in installed.added]
    if not installed.added:
        lines.append(f"{path} already has all lines")
    if installed.lfs:
        lines.append("Git LFS stores .ckpt/objects from the next commit on")
    if installed.committed:
        objects = count(installed.committed, "object")
        lines.append(f"{objects} in git's history already;  {MIGRATE}  rewrites it without them")
    if use := installed.store:
        moved = f"{count(use.moved, 'object')} moved there, {size(use.nbytes)}"
        lines.append(f"objects are in {printable(str(use.path))}; {moved}; commit .ckpt/store")
        if use.damaged:
            lines.append(f"{count(use.damaged, 'object')} damaged, and not moved; see  ckpt verify")
    todo = "commit .gitattributes, and run  ckpt git-driver install  once in every other clone"
    return "\n".join([*lines, todo])


def installed_data(installed: Installed) -> dict[str, Any]:
    """The same for JSON."""
    store = installed.store and fields(installed.store, "path", "moved", "nbytes", "damaged")
    return {
        "config": CONFIG,
        **fields(installed, "attributes", "added", "lfs", "committed"),
        "store": store,
    }


def merged_lines(merged: Merged) -> Iterator[str]:
    """The versions that differ from one of the sides, a line each."""
    for moved in merged.renumbered:
        why = "which has the same bytes" if moved.is_twin else "since its number was taken"
        yield printable(f"{moved.before} of {moved.side} is now {moved.after}, {why}")
    for ref in merged.kept:
        yield printable(f"{ref} was removed on one side, but is kept: an alias points to it")
    for ref, state in merged.settled:
        which = "removal" if state == REMOVED else "restore"
        what = f"{ref} was removed on one side and restored on the other; the {which} is later"
        yield printable(f"{what}, so it is {value_text(state)}")


def conflict_line(conflict: Conflict) -> str:
    """One conflict in one line."""
    sides = {"ours": conflict.ours, "theirs": conflict.theirs, "base": conflict.base}
    values = ", ".join(f"{side} {text[:LONG]}" for side, text in sides.items())
    todo = "ckpt git-driver resolve --ours  or  --theirs  decides; then  git add registry.json"
    return printable(f"{conflict.what}: {values}; {todo}")


def merged_data(merged: Merged) -> dict[str, Any]:
    """The same for JSON."""
    return {
        **fields(merged, "serial=index.serial", "write_id=index.write_id"),
        "renumbered": list(map(asdict, merged.renumbered)),
        "kept": merged.kept,
        "settled": [{"ref": ref, "state": state} for ref, state in merged.settled],
        "conflicts": list(map(asdict, merged.conflicts)),
    }

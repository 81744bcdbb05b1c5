"""What a merge of two indexes did, and what is left to a person."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ckpt.ops.git_driver import CONFIG, Installed
from ckpt.registry.merge import Conflict, Merged
from ckpt.show.look.words import printable

LONG = 80  # characters of a field's value; --json has the whole


def installed_text(installed: Installed) -> str:
    """What git was told, and what to do with it."""
    path = printable(str(installed.attributes))
    lines = [f"git config  {name}  set in this clone" for name in CONFIG]
    lines += [f"{line}  added to {path}" for line in installed.added]
    if not installed.added:
        lines.append(f"{path} has all lines already")
    return "\n".join(
        [*lines, "commit .gitattributes; every other clone types  ckpt git-driver install  once"]
    )


def installed_data(installed: Installed) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "config": CONFIG,
        "attributes": str(installed.attributes),
        "added": list(installed.added),
    }


def merged_lines(merged: Merged) -> Iterator[str]:
    """What is not as it was on one side, a line each."""
    for each in merged.renumbered:
        why = ", where the same bytes stand" if each.is_twin else ", for its number was taken"
        yield printable(f"{each.before} of theirs is {each.after} now{why}")
    for ref in merged.kept:
        yield printable(f"{ref} was removed on one side, and stays: an alias points to it")


def conflict_line(conflict: Conflict) -> str:
    """One conflict in one line."""
    sides = {"ours": conflict.ours, "theirs": conflict.theirs, "base": conflict.base}
    said = ", ".join(f"{side} {text[:LONG]}" for side, text in sides.items())
    todo = f"{conflict.command}  takes theirs" if conflict.command else "edit it to have theirs"
    return printable(f"{conflict.what}: {said}; ours is kept, {todo}; then  git add registry.json")


def merged_data(merged: Merged) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "serial": merged.index.serial,
        "write_id": merged.index.write_id,
        "renumbered": [asdict(each) for each in merged.renumbered],
        "kept": list(merged.kept),
        "conflicts": [asdict(each) for each in merged.conflicts],
    }

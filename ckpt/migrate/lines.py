"""Folded keys as lines that people review: ``? blocks.{i}.fc.bias  64``."""

from collections.abc import Mapping
from functools import lru_cache

from ckpt.errors import RuleError
from ckpt.migrate.fold import Folded, Leaf
from ckpt.migrate.template import part_of, part_text
from ckpt.migrate.tree import Run
from ckpt.tensors import is_key

_MOST_TENSORS = 250_000  # of an example, as of a checkpoint


def written(schema: Folded) -> list[str]:
    """A line for each tensor: ``? `` if it is optional, its template, an example of its shape."""
    lines = []
    for template, leaf in schema.lines():
        sizes = " ".join("_" if size is None else str(size) for size in leaf.sizes) or "()"
        lines.append(f"{'? ' if leaf.optional else ''}{template}  {sizes}")
    return lines


def read(lines: object, blocks: Mapping[str, int], *, name: str) -> Folded:
    """Read what `written` made.

    Args:
        lines: A parsed list.
        blocks: The number of blocks, by the template of their run.
        name: In messages.

    Raises:
        RuleError: A line is not one of a schema.
    """
    if not isinstance(lines, list) or not lines:
        raise RuleError(f"{name}: not a list of keys")
    try:
        return _read(tuple(map(str, lines)), tuple(blocks.items()))
    except RuleError as error:
        raise RuleError(f"{name}: {error}", hint=error.hint) from error


@lru_cache(maxsize=64)  # one migration ends where the next one begins
def _read(lines: tuple[str, ...], blocks: tuple[tuple[str, int], ...]) -> Folded:
    root, counts = Folded(), dict(blocks)
    for line in lines:
        parts, leaf = _line(line)
        at, so_far = root, ""
        for text, part in parts:
            at = at.children.setdefault(part, Folded())
            so_far = f"{so_far}.{text}" if so_far else text
            if isinstance(part, Run):
                at.count = counts.get(so_far, 2)
        if at.leaf is not None:
            raise RuleError(f"{line!r:.120} occurs twice")
        at.leaf = leaf
    if root.size > _MOST_TENSORS:
        raise RuleError(f"an example of {root.size:,} tensors, the limit is {_MOST_TENSORS:,}")
    return root


@lru_cache(maxsize=1 << 14)  # most lines of a class stay as they are
def _line(line: str) -> tuple[tuple[tuple[str, str | Run], ...], Leaf]:
    """The parts of a line's template, as written and as meant, and its tensor."""
    text, _, shape = line.rpartition("  ")
    sizes = [] if shape == "()" else shape.split(" ")
    if not text or not is_key(text) or any(size != "_" and not _is_size(size) for size in sizes):
        hint = "e.g.  'blocks.{i}.fc.weight  64 32',  with two spaces between them"
        raise RuleError(f"{line!r:.120} is not a key and its shape", hint=hint)
    leaf = Leaf(tuple(None if size == "_" else int(size) for size in sizes), text[:2] == "? ")
    try:
        return tuple((it, part_of(it)) for it in text.removeprefix("? ").split(".")), leaf
    except RuleError as error:
        raise RuleError(f"{line!r:.120}: {error}", hint=error.hint) from error


def block_counts(schema: Folded, prefix: str = "", depth: int = 0) -> dict[str, int]:
    """The number of blocks of each run, by its template."""
    found: dict[str, int] = {}
    for part, child in schema.children.items():
        text = part_text(part, depth)
        below = f"{prefix}.{text}" if prefix else text
        if isinstance(part, Run):
            found[below] = child.count
        found.update(block_counts(child, below, depth + isinstance(part, Run)))
    return found


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19

"""Folded keys as lines that people review: ``? blocks.{i}.fc.bias  64``."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from ckpt.errors import RuleError
from ckpt.migrate.fold import Folded, Leaf
from ckpt.migrate.template import part_of, part_text
from ckpt.migrate.tree import Run
from ckpt.tensors import is_key

_MOST_TENSORS = 250_000  # of an example, as of a checkpoint
_MOST_NODES = 1 << 18
_nodes: dict[object, Folded] = {}


def written(schema: Folded) -> list[str]:
    """A line for each tensor: ``? `` if it is optional, its template, an example of its shape."""
    lines = []
    for template, leaf in schema.lines():
        sizes = " ".join("_" if size is None else str(size) for size in leaf.sizes) or "()"
        lines.append(f"{'? ' if leaf.optional else ''}{template}  {sizes}")
    return lines


def read(lines: Sequence[str], blocks: Mapping[str, int]) -> Folded:
    """Read what `written` made.

    Args:
        lines: The lines.
        blocks: The number of blocks, by the template of their run.

    Raises:
        RuleError: A line is not one of a schema.
    """
    root, tensors = Folded(), 0
    for line in lines:
        parts, leaf = _line(line)
        at, times = root, 1
        for part, template in parts:
            below = at.children.get(part)
            if below is None:
                count = blocks.get(template, 2) if isinstance(part, Run) else 1
                below = at.children[part] = Folded(count=count)
            at = below
            times *= at.count
        if at.leaf is not None:
            raise RuleError(f"{line!r:.120} occurs twice")
        at.leaf = leaf
        tensors += times
    if tensors > _MOST_TENSORS:
        raise RuleError(f"an example of {tensors:,} tensors, the limit is {_MOST_TENSORS:,}")
    return _shared(root)


def _shared(node: Folded) -> Folded:
    """The same, with the nodes that other schemas have, too: `mismatch` knows them by their `id`.

    A kept node keeps its children, so no other object gets their `id`.
    """
    for part, child in node.children.items():
        node.children[part] = _shared(child)
    if len(_nodes) > _MOST_NODES:
        _nodes.clear()
    parts = tuple((part, id(child)) for part, child in node.children.items())
    return _nodes.setdefault((node.leaf, node.count, parts), node)


@lru_cache(maxsize=1 << 14)  # most lines of a class stay as they are
def _line(line: str) -> tuple[tuple[tuple[str | Run, str], ...], Leaf]:
    """The parts of a line's template, each with the template up to it; and its tensor."""
    text, _, shape = line.rpartition("  ")
    sizes = [] if shape == "()" else shape.split(" ")
    if not text or not is_key(text) or any(size != "_" and not _is_size(size) for size in sizes):
        hint = "e.g.  'blocks.{i}.fc.weight  64 32',  with two spaces between them"
        raise RuleError(f"{line!r:.120} is not a key and its shape", hint=hint)
    leaf = Leaf(tuple(None if size == "_" else int(size) for size in sizes), text[:2] == "? ")
    try:
        texts = text.removeprefix("? ").split(".")
        return tuple((part_of(it), ".".join(texts[: at + 1])) for at, it in enumerate(texts)), leaf
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

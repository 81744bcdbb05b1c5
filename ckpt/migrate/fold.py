"""Folded keys: those of repeated blocks once, with an index in place of their numbers.

Law: a state_dict matches the folded form of its own keys, and that of the same class at another
depth and width.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ckpt.migrate.template import part_of, part_text
from ckpt.migrate.tree import Branch, Run, run_of
from ckpt.tensors import TensorEntry

COUNTER = "num_batches_tracked"  # torch adds it where a file from before 0.4.1 has none
_ANY_SIZE = 48  # of a dimension without an example; many numbers divide it


@dataclass(frozen=True, slots=True)
class Leaf:
    """A tensor.

    Attributes:
        sizes: An example of its shape; None for a size that differs between blocks. Only their
            number counts.
        optional: Whether some blocks, or some configurations of the class, lack it.
    """

    sizes: tuple[int | None, ...]
    optional: bool = False


@dataclass(slots=True)
class Folded:
    """Folded keys from one part on.

    Attributes:
        leaf: The tensor whose key ends here.
        children: What follows, by the part, or by the run of alike blocks.
        count: An example of the number of blocks, of a run.
    """

    leaf: Leaf | None = None
    children: "dict[str | Run, Folded]" = field(default_factory=dict)
    count: int = 1

    def lines(self, prefix: str = "", depth: int = 0) -> list[tuple[str, Leaf]]:
        """The tensors, by their keys as templates: ``blocks.{i}.weight``."""
        found = [] if self.leaf is None else [(prefix, self.leaf)]
        for part, child in self.children.items():
            text = part_text(part, depth)
            below = depth + isinstance(part, Run)
            found += child.lines(f"{prefix}.{text}" if prefix else text, below)
        return found


def folded(branch: Branch) -> Folded:
    """Fold the keys of a tree."""
    made = Folded(None if branch.shape is None else Leaf(branch.shape))
    below = {part: folded(child) for part, child in branch.children.items()}
    for first, run in _runs(below).items():
        start = run_of(first)
        alone = start == Run("", 0) and sum(part.isdecimal() for part in below) == 1
        made.children[start if start and (run.count > 1 or alone) else first] = run
    return made


def _runs(below: Mapping[str, Folded]) -> dict[str, Folded]:
    """The parts below a module, consecutive alike blocks together under the first."""
    runs: dict[str, Folded] = {}
    firsts: dict[str, str] = {}  # of the run that a name has at the moment
    for part, block in sorted(below.items(), key=_place_of):
        number = run_of(part)
        first = firsts.get(number.name) if number else None
        both = None
        if number and first and number.start == int(first[len(number.name) :]) + runs[first].count:
            both = _alike(runs[first], block, named=bool(number.name))
        if both is not None and first:
            runs[first] = replace(both, count=runs[first].count + 1)
        else:
            runs[part] = block
            if number:
                firsts[number.name] = part
    return {part: runs[part] for part in below if part in runs}


def _place_of(item: tuple[str, Folded]) -> int:
    number = run_of(item[0])
    return number.start if number else -1


def _alike(one: Folded, other: Folded, *, named: bool) -> Folded | None:
    """Two blocks as one; None if they share less than half of their tensors, or contradict.

    Blocks that have names, ``layer_0``, hold modules: ``conv1`` and ``conv2`` are two layers.
    """
    if named and not all(child.children for child in (*one.children.values(),)):
        return None
    both = merged(one, other)
    if both is None:
        return None
    mine, theirs = ({line for line, _ in block.lines()} for block in (one, other))
    return both if 2 * len(mine & theirs) >= max(len(mine), len(theirs)) else None


def merged(one: Folded, other: Folded) -> Folded | None:
    """Both, where what only one of them has is optional; None if ranks contradict."""
    one, other = _with_runs(one, other), _with_runs(other, one)
    leaf = one.leaf or other.leaf
    if one.leaf and other.leaf:
        if len(one.leaf.sizes) != len(other.leaf.sizes):
            return None
        sizes = tuple(a if a == b else None for a, b in zip(one.leaf.sizes, other.leaf.sizes,
                                                            strict=True))  # fmt: skip
        leaf = Leaf(sizes, one.leaf.optional or other.leaf.optional)
    elif leaf:
        leaf = replace(leaf, optional=True)
    made = Folded(leaf, count=max(one.count, other.count))
    for part in dict.fromkeys([*one.children, *other.children]):
        mine, theirs = one.children.get(part), other.children.get(part)
        both = merged(mine, theirs) if mine and theirs else _optional(mine or theirs or Folded())
        if both is None:
            return None
        made.children[part] = both
    return made


def _with_runs(one: Folded, other: Folded) -> Folded:
    """`one`, whose single blocks are runs where those of `other` are: it has fewer of them."""
    made = one
    for run in (part for part in other.children if isinstance(part, Run)):
        first = run.part(0)
        if run not in made.children and first in made.children:
            children = {run if part == first else part: it for part, it in made.children.items()}
            made = replace(made, children=children)
    return made


def _optional(one: Folded) -> Folded:
    leaf = replace(one.leaf, optional=True) if one.leaf else None
    return Folded(leaf, {part: _optional(it) for part, it in one.children.items()}, one.count)


def marked(schema: Folded, optional: Collection[str], prefix: str = "", depth: int = 0) -> Folded:
    """The same, where tensors of these templates are optional, too."""
    leaf = schema.leaf
    if leaf is not None and prefix in optional:
        leaf = replace(leaf, optional=True)
    children = {}
    for part, child in schema.children.items():
        text = f"{prefix}.{part_text(part, depth)}" if prefix else part_text(part, depth)
        children[part] = marked(child, optional, text, depth + isinstance(part, Run))
    return Folded(leaf, children, schema.count)


def mismatch(schema: Folded, branch: Branch, key: str = "") -> str | None:
    """Why the keys of a state_dict do not match, by the first of them; None if they do."""
    if branch.matched.get(id(schema)) is schema:
        return None
    reason = _mismatch(schema, branch, key)
    if reason is None:
        branch.matched[id(schema)] = schema
    return reason


def _mismatch(schema: Folded, branch: Branch, key: str) -> str | None:
    if branch.shape is not None:
        if schema.leaf is None:
            return f"unexpected {key}"
        if len(branch.shape) != len(schema.leaf.sizes):
            found, wanted = len(branch.shape), len(schema.leaf.sizes)
            return f"{key} has {found} dimensions, expected {wanted}"
    elif schema.leaf is not None and not _may_lack(schema.leaf, key):
        return f"missing {key}"
    for part, child in branch.children.items():  # first what needs no look below
        if part not in schema.children and not any(_candidates(schema, part)):
            return _matched(schema, part, child, f"{key}.{part}" if key else part)[1]
    numbers: dict[Run, set[int]] = {}
    for part, child in branch.children.items():
        below = f"{key}.{part}" if key else part
        name, reason = _matched(schema, part, child, below)
        if reason is not None:
            return reason
        if isinstance(name, Run):
            numbers.setdefault(name, set()).add(int(part[len(name.name) :]))
    return _lacking(schema, branch, key, numbers)


def _matched(
    schema: Folded, part: str, child: Branch, key: str
) -> tuple[str | Run | None, str | None]:
    """The part of a schema that a part of keys is; else why it is none."""
    reason = None
    for name in _candidates(schema, part):
        reason = mismatch(schema.children[name], child, key)
        if reason is None:
            return name, None
    return None, reason or f"unexpected {next(child.keys(key), key)}"


def _lacking(
    schema: Folded, branch: Branch, key: str, numbers: Mapping[Run, set[int]]
) -> str | None:
    """What the schema requires below a key and a state_dict lacks."""
    for part, child in schema.children.items():
        first = part.part(0) if isinstance(part, Run) else part
        below = f"{key}.{first}" if key else first
        found = (
            numbers.get(part) if isinstance(part, Run) else {0} if part in branch.children else None
        )
        if not found:
            lines = child.lines(below)
            if lack := next((line for line, leaf in lines if not _may_lack(leaf, line)), None):
                return f"missing {lack}"
        elif isinstance(part, Run) and found != {*range(part.start, part.start + len(found))}:
            gap = next(n for n in range(part.start, max(found)) if n not in found)
            return f"missing {below.removesuffix(first)}{part.name}{gap}"
    return None


def _may_lack(leaf: Leaf, key: str) -> bool:
    return leaf.optional or key.endswith(COUNTER)


def _candidates(schema: Folded, part: str) -> Iterator[str | Run]:
    """The parts of a schema that a part of a key may be, the most exact first."""
    if part in schema.children:
        yield part
    number = run_of(part)
    if number is not None:
        runs = [it for it in schema.children if isinstance(it, Run) and it.name == number.name]
        yield from sorted((it for it in runs if it.start <= number.start), key=lambda it: -it.start)


def template_of(schema: Folded, key: str) -> str | None:
    """The template of a key; None if the schema has none."""
    return _template(schema, key.split("."), 0)


def _template(schema: Folded, parts: list[str], depth: int) -> str | None:
    if not parts:
        return "" if schema.leaf is not None else None
    for name in _candidates(schema, parts[0]):
        below = _template(schema.children[name], parts[1:], depth + isinstance(name, Run))
        if below is not None:
            text = part_text(name, depth)
            return f"{text}.{below}" if below else text
    return None


def has_all(branch: Branch, templates: Iterable[str]) -> bool:
    """Whether a state_dict has a key for each of some templates."""
    return all(_has(branch, template.split(".")) for template in templates)


def _has(branch: Branch, parts: Sequence[str]) -> bool:
    if not parts:
        return branch.shape is not None
    wanted = part_of(parts[0])
    if isinstance(wanted, str):
        child = branch.children.get(wanted)
        return child is not None and _has(child, parts[1:])
    return any(
        run.name == wanted.name and run.start >= wanted.start and _has(child, parts[1:])
        for part, child in branch.children.items()
        if (run := run_of(part)) is not None
    )


def examples(schema: Folded, blocks: int | None, dtype: str = "float32") -> list[TensorEntry]:
    """A state_dict that matches.

    Args:
        schema: What it matches.
        blocks: The number of blocks of every run; None for that of its example.
        dtype: Of its tensors.
    """
    return [TensorEntry(key, dtype, shape) for key, shape in _examples(schema, "", blocks)]


def _examples(
    schema: Folded, key: str, blocks: int | None
) -> Iterator[tuple[str, tuple[int, ...]]]:
    if schema.leaf is not None:
        yield key, tuple(_ANY_SIZE if size is None else size for size in schema.leaf.sizes)
    for part, child in schema.children.items():
        run = isinstance(part, Run)
        count = (blocks or child.count) if run else 1
        for name in [part.part(n) if isinstance(part, Run) else part for n in range(count)]:
            yield from _examples(child, f"{key}.{name}" if key else name, blocks)

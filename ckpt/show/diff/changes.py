"""The changed keys, similar ones folded into one row: what happened, to which keys, and how."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ckpt.compare.keys import KeyDiff, Pair
from ckpt.compare.moves import Move, find_moves
from ckpt.show.look.folding import fold
from ckpt.show.look.tables import Table
from ckpt.show.look.words import count, printable, shape
from ckpt.tensors import NOT_A_TENSOR, TensorEntry

KINDS = ("added", "removed", "renamed", "renamed?", "reshaped", "re-typed", "changed")


class ChangeRow(NamedTuple):
    """``renamed``, ``conv{1,2}.weight  ->  embed{1,2}.weight``, ``2 keys, same bytes``."""

    word: str
    what: str
    detail: str


def change_rows(diff: KeyDiff, inferred: Sequence[tuple[str, str]] = ()) -> Iterator[ChangeRow]:
    """All changes, and the number of equal keys; `inferred` are (removed key, added key)."""
    known = {key for pair in inferred for key in pair}
    for word, entries in (("removed", diff.removed), ("added", diff.added)):
        left = [entry for entry in entries if entry.key not in known]
        yield from _group(word, [(e.key,) for e in left], [_kind(e) for e in left])
    moves, renamed = moves_of(diff)
    yield from _moved_modules(moves)
    yield from _group("renamed", renamed, note="same bytes")
    yield from _group("renamed?", inferred, note="by names and shapes")
    yield from _from_to(
        "reshaped", [(a.key, shape(a.shape), shape(b.shape)) for a, b in diff.reshaped]
    )
    yield from _from_to("re-typed", [(a.key, a.dtype, b.dtype) for a, b in diff.retyped])
    swapped = {key for pair in diff.swapped for key in pair}
    for one, other in diff.swapped:
        what = f"{printable(one)}  <->  {printable(other)}"
        yield ChangeRow("swapped", what, "exchanged their bytes")
    changed = [(a.key,) for a, _ in diff.changed if a.key not in swapped]
    yield from _group("changed", changed, note="values differ")
    for word, ties in (("tied", diff.tied), ("untied", diff.untied)):
        for key, other in ties:
            yield ChangeRow(word, f"{printable(key)}  =  {printable(other)}", "share one tensor")
    yield from _group("reordered", [(key,) for key in diff.reordered])
    if diff.same:
        yield ChangeRow("same", count(len(diff.same), "key"), "")


def moves_of(diff: KeyDiff) -> tuple[list[Move], list[tuple[str, str]]]:
    """Modules that moved as a whole, and the other renames."""
    return find_moves(diff.keys_before, [(a.key, b.key) for a, b in diff.renamed])


def stat_table(diff: KeyDiff, inferred: Sequence[tuple[str, str]] = ()) -> Table:
    """How many keys of each module changed in which way; modules with equal counts are one row.

    That row has the sum of their counts.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for word, key, _ in changed_keys(diff, inferred):
        counts[key.rpartition(".")[0]][word] += 1
    alike: defaultdict[tuple[int, ...], list[tuple[str, ...]]] = defaultdict(list)
    for module, found in counts.items():
        alike[tuple(found[kind] for kind in KINDS)].append((module,))
    rows = [
        [
            printable(folded.cells[0]) or "(root)",
            *(f"{number * folded.count:,}" if number else "" for number in numbers),
        ]
        for numbers, modules in alike.items()
        for folded in fold(modules)
    ]
    return Table(["module", *KINDS], rows, right=KINDS).without_empty_columns()


def changed_keys(
    diff: KeyDiff, inferred: Sequence[tuple[str, str]] = ()
) -> Iterator[tuple[str, str, str]]:
    """(What happened, key, how) of each changed key, one by one.

    The key is that of the second side, if it has the tensor.
    """
    known = {key for pair in inferred for key in pair}
    for word, entries in (("removed", diff.removed), ("added", diff.added)):
        yield from ((word, e.key, _kind(e)) for e in entries if e.key not in known)
    yield from (("renamed?", new, f"was {printable(old)}") for old, new in inferred)
    yield from (("renamed", b.key, f"was {printable(a.key)}") for a, b in diff.renamed)
    for a, b in diff.reshaped:
        yield "reshaped", b.key, f"{shape(a.shape)}  ->  {shape(b.shape)}"
    yield from (("re-typed", b.key, f"{a.dtype}  ->  {b.dtype}") for a, b in diff.retyped)
    yield from (("changed", b.key, _kind(b)) for _, b in diff.changed)


def shapes_data(pairs: Sequence[Pair], before: str, after: str) -> list[dict[str, Any]]:
    """Pairs of one key and two shapes for JSON, where `before` and `after` name the shapes."""
    return [{"key": a.key, before: list(a.shape), after: list(b.shape)} for a, b in pairs]


def entry_data(entry: TensorEntry) -> dict[str, Any]:
    """An entry for JSON."""
    return {"key": entry.key, "shape": entry.shape, "dtype": entry.dtype}


def _moved_modules(moves: Sequence[Move]) -> Iterator[ChangeRow]:
    counts = {(_all(move.old), _all(move.new)): move.count for move in moves}
    for folded in fold([*counts]):
        old, new = folded.cells[:2]
        one = counts.get((old, new))
        many = count(folded.count, "module") if one is None else count(one, "key")
        yield ChangeRow("moved", folded.text, f"{many}, same bytes")


def _all(module: str) -> str:
    return f"{module}.*" if module else "*"


def _kind(entry: TensorEntry) -> str:
    if entry.dtype == NOT_A_TENSOR:
        return "not a tensor"
    return f"{shape(entry.shape)}  {entry.dtype}"


def _group(
    word: str, rows: Sequence[tuple[str, ...]], kinds: Sequence[str] = (), *, note: str = ""
) -> Iterator[ChangeRow]:
    """Folded rows; a row of a single key shows its shape and dtype."""
    described = dict(zip(rows, kinds, strict=False))
    for folded in fold(rows):
        if folded.count == 1:
            detail = described.get(folded.cells, note)
        else:
            detail = ", ".join(filter(None, [count(folded.count, "key"), note]))
        yield ChangeRow(word, folded.text, detail)


def _from_to(word: str, changes: Sequence[tuple[str, str, str]]) -> Iterator[ChangeRow]:
    """Keys that went from one thing to another, folded if they changed alike."""
    alike: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
    for key, before, after in changes:
        alike[f"{before}  ->  {after}"].append((key,))
    for detail, rows in alike.items():
        for folded in fold(rows):
            keys = f"{count(folded.count, 'key')}, " if folded.count > 1 else ""
            yield ChangeRow(word, printable(folded.cells[0]), keys + detail)

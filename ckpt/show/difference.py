"""A difference: `ckpt diff`. First the answer, then the details, then the next command."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ckpt.difference import Fit, KeyDiff, Pair
from ckpt.moves import Move, find_moves
from ckpt.ops.diff import Comparison
from ckpt.ops.fitting import Fitting
from ckpt.show.folding import fold
from ckpt.show.records import facts_text
from ckpt.show.terminal import table
from ckpt.show.values import values_data, values_lines
from ckpt.show.words import count, printable, shape, size
from ckpt.tensors import TensorEntry


def comparison_text(
    comparison: Comparison, *, width: int | None, records: bool = False, all_values: bool = False
) -> str:
    """The difference as text.

    Args:
        comparison: What was found.
        width: Columns; None for any.
        records: Show how both sides were made as well.
        all_values: Show all tensors whose values changed, and not those alone that changed most.
    """
    if comparison.fitting is not None:
        return _fitting_text(comparison, comparison.fitting, width)
    before, after = printable(comparison.before), printable(comparison.after)
    lines = [f"{before} -> {after}", *_groups(comparison.diff)]
    if comparison.unread_bytes:
        lines.append(
            f"  not compared: {size(comparison.unread_bytes)} of values; --values reads them"
        )
    elif not comparison.diff.differs:
        lines.append("  no difference")
    lines += values_lines(comparison, width=width, all_rows=all_values)
    if comparison.facts and records:
        facts = facts_text(comparison.facts, before, after, width=width)
        lines += ["", _indented(facts)]
    elif comparison.facts:
        lines.append(f"  record    {count(len(comparison.facts), 'field')} not alike; --records")
    return "\n".join(lines)


def _groups(diff: KeyDiff) -> Iterator[str]:
    yield from _group("removed", [(e.key,) for e in diff.removed], [_kind(e) for e in diff.removed])
    yield from _group("added", [(e.key,) for e in diff.added], [_kind(e) for e in diff.added])
    moves, renamed = _moves(diff)
    for move in moves:
        whole = [f"{part}.*" if part else "*" for part in map(printable, (move.old, move.new))]
        yield _line("moved", "  ->  ".join(whole), f"{count(move.count, 'key')}, same bytes")
    yield from _group("renamed", renamed, note="same bytes")
    yield from _pairs(
        "reshaped", [(a.key, shape(a.shape), shape(b.shape)) for a, b in diff.reshaped]
    )
    yield from _pairs("re-typed", [(a.key, a.dtype, b.dtype) for a, b in diff.retyped])
    swapped = {key for pair in diff.swapped for key in pair}
    for one, other in diff.swapped:
        what = f"{printable(one)}  <->  {printable(other)}"
        yield _line("swapped", what, "each has the bytes of the other")
    changed = [(a.key,) for a, _ in diff.changed if a.key not in swapped]
    yield from _group("changed", changed, note="other values")
    for word, ties in (("tied", diff.tied), ("untied", diff.untied)):
        for key, other in ties:
            yield _line(word, f"{printable(key)}  =  {printable(other)}", "one tensor for both")
    yield from _group("reordered", [(key,) for key in diff.reordered])
    if diff.same:
        yield f"  same      {count(len(diff.same), 'key')}"


def _moves(diff: KeyDiff) -> tuple[list[Move], list[tuple[str, str]]]:
    """What moved as a whole, and the renames besides."""
    return find_moves(diff.keys_before, [(a.key, b.key) for a, b in diff.renamed])


def _kind(entry: TensorEntry) -> str:
    return f"{shape(entry.shape)}  {entry.dtype}"


def _group(
    word: str, rows: Sequence[tuple[str, ...]], kinds: Sequence[str] = (), *, note: str = ""
) -> Iterator[str]:
    """Folded lines; a line of one key shows its shape and dtype."""
    described = dict(zip(rows, kinds, strict=False))
    for folded in fold(rows):
        if folded.count == 1:
            detail = described.get(folded.cells, note)
        else:
            detail = ", ".join(filter(None, [count(folded.count, "key"), note]))
        yield _line(word, "  ->  ".join(map(printable, folded.cells)), detail)


def _pairs(word: str, changes: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    """Keys that went from one thing to another, folded where they did alike."""
    alike: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
    for key, before, after in changes:
        alike[f"{before}  ->  {after}"].append((key,))
    for detail, rows in alike.items():
        for folded in fold(rows):
            keys = f"{count(folded.count, 'key')}, " if folded.count > 1 else ""
            yield _line(word, printable(folded.cells[0]), keys + detail)


def _line(word: str, what: str, detail: str) -> str:
    return f"  {word:<9} {what}   {detail}".rstrip()


def _fitting_text(comparison: Comparison, fitting: Fitting, width: int | None) -> str:
    fit, definition = fitting.fit, printable(fitting.definition)
    backwards = comparison.before == fitting.definition and comparison.after != fitting.definition
    mine = printable(comparison.after if backwards else comparison.before)
    if fit.fits:
        return f"{mine} fits {definition}: {count(fit.agreeing, 'key')} agree"
    counts = [f"{count(fit.agreeing, 'key')} agree", f"{len(fit.missing):,} missing"]
    counts.append(f"{len(fit.unexpected):,} unexpected")
    if fit.reshaped:
        counts.append(f"{len(fit.reshaped):,} of another shape")
    short = definition.rpartition(":")[2]
    headers = [f"only in {mine}", f"only in {short}", "shape", ""]
    parts = [f"{mine} does not fit {definition}"]
    if fit.missing or fit.unexpected:
        parts.append(_indented(table(list(_side_by_side(fit)), headers, width=width)))
    if fit.reshaped:
        parts.append(_indented(table(_reshaped(fit.reshaped), ["key", mine, short], width=width)))
    parts.append("  " + " · ".join(counts))
    if fitting.options:
        options = " ".join(fitting.options)
        parts.append(f"To make it fit:  ckpt rename {mine} {options} --check {definition}")
    return "\n\n".join(parts)


def _side_by_side(fit: Fit) -> Iterator[list[str]]:
    """What is left over on both sides, each beside the first that may be its twin."""
    for mine, wanted in _twins(fit.unexpected, fit.missing):
        shapes = dict.fromkeys(shape(e.shape) for e in (mine, wanted) if e is not None)
        note = "same shape" if mine and wanted and len(shapes) == 1 else ""
        keys = [printable(entry.key) if entry else "" for entry in (mine, wanted)]
        yield [*keys, " | ".join(shapes), note]


def _twins(
    unexpected: Sequence[TensorEntry], missing: Sequence[TensorEntry]
) -> Iterator[tuple[TensorEntry | None, TensorEntry | None]]:
    """Pairs in order: of one shape and one last part if there are such, else of one shape."""
    left = dict(enumerate(missing))
    partner: dict[int, int] = {}
    for strict in (True, False):
        places: defaultdict[object, list[int]] = defaultdict(list)
        for number in reversed(left):
            places[_likeness(left[number], strict)].append(number)
        for number, mine in enumerate(unexpected):
            same = places[_likeness(mine, strict)]
            if number not in partner and same:
                partner[number] = same.pop()
                del left[partner[number]]
    for number, mine in enumerate(unexpected):
        yield mine, missing[partner[number]] if number in partner else None
    yield from ((None, each) for each in left.values())


def _likeness(entry: TensorEntry, strict: bool) -> object:
    return entry.shape, entry.key.rpartition(".")[2] if strict else None


def _reshaped(pairs: Sequence[Pair]) -> list[list[str]]:
    return [[printable(a.key), shape(a.shape), shape(b.shape)] for a, b in pairs]


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def comparison_data(comparison: Comparison) -> dict[str, Any]:
    """The same for JSON."""
    diff, fitting = comparison.diff, comparison.fitting
    return {
        "before": comparison.before,
        "after": comparison.after,
        "differs": comparison.differs,
        "removed": [_entry(entry) for entry in diff.removed],
        "added": [_entry(entry) for entry in diff.added],
        "renamed": [{"old": a.key, "new": b.key} for a, b in diff.renamed],
        "moved": [asdict(move) for move in _moves(diff)[0]],
        "reshaped": [
            {"key": a.key, "before": list(a.shape), "after": list(b.shape)}
            for a, b in diff.reshaped
        ],
        "retyped": [{"key": a.key, "before": a.dtype, "after": b.dtype} for a, b in diff.retyped],
        "changed": [a.key for a, _ in diff.changed],
        "swapped": [list(pair) for pair in diff.swapped],
        "same": [a.key for a, _ in diff.same],
        "reordered": list(diff.reordered),
        "tied": [{"key": key, "other": other} for key, other in diff.tied],
        "untied": [{"key": key, "other": other} for key, other in diff.untied],
        "not_compared": [a.key for a, _ in diff.unread],
        "unread_bytes": comparison.unread_bytes,
        "records": [asdict(fact) for fact in comparison.facts],
        **values_data(comparison),
        "fit": fitting_data(fitting) if fitting else None,
    }


def fitting_data(fitting: Fitting) -> dict[str, Any]:
    """Whether a state_dict fits a definition, for JSON."""
    return {
        "definition": fitting.definition,
        "fits": fitting.fit.fits,
        "missing": [_entry(entry) for entry in fitting.fit.missing],
        "unexpected": [_entry(entry) for entry in fitting.fit.unexpected],
        "reshaped": [
            {"key": a.key, "found": list(a.shape), "expected": list(b.shape)}
            for a, b in fitting.fit.reshaped
        ],
        "agreeing": fitting.fit.agreeing,
        "options": list(fitting.options),
    }


def _entry(entry: TensorEntry) -> dict[str, Any]:
    return {"key": entry.key, "shape": list(entry.shape), "dtype": entry.dtype}

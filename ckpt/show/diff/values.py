"""How far values are apart: the last part of `ckpt diff --values`."""

from collections.abc import Iterator
from typing import Any

from ckpt.ops.diff import Comparison, PairValues
from ckpt.show.look.tables import Table
from ckpt.show.look.words import count, printable

ROWS = 20  # unless all are asked for


def values_table(comparison: Comparison, *, all_rows: bool) -> Table:
    """What changed, most first; columns that would be empty are left out."""
    pairs = comparison.values or ()
    rows = [_row(pair) for pair in (pairs if all_rows else pairs[:ROWS])]
    heads = [head for head in rows[0] if any(row[head] for row in rows)]
    return Table(heads, [[row[head] for head in heads] for row in rows], right=heads[1:])


def values_notes(comparison: Comparison, *, all_rows: bool) -> Iterator[str]:
    """How much was left out, and how much of it is within the tolerance."""
    more = len(comparison.values or ()) - ROWS
    if more > 0 and not all_rows:
        yield f"  and {more:,} more that changed less; --all lists them"
    if comparison.tolerance is not None:
        within, changed = len(comparison.within), len(comparison.diff.changed)
        yield ""
        yield (
            f"  {count(changed - within, 'key')} changed by more than {comparison.tolerance:g} · "
            f"{within:,} within"
        )


def values_data(comparison: Comparison) -> dict[str, Any]:
    """The same for JSON; nothing is left out."""
    return {
        "tolerance": comparison.tolerance,
        "within": [pair.before.key for pair in comparison.within],
        "values": None if comparison.values is None else [_data(p) for p in comparison.values],
    }


def _row(pair: PairValues) -> dict[str, str]:
    found = pair.found
    return {
        "key": printable(pair.before.key),
        "differ": f"{found.differ:,} of {found.elements:,}",
        "max abs": _number(found.max_abs),
        "mean abs": _number(found.mean_abs),
        "rel L2": _number(found.relative_l2),
        "cosine": _cosine(found.cosine),
        "ulps": "" if found.max_ulps is None else f"{found.max_ulps:,}",
        "NaN": _two(found.nan),
        "Inf": _two(found.inf),
        "cast": _cast(pair),
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _cosine(value: float | None) -> str:
    """Six places: 1 stands only for what cannot be told from it."""
    return "" if value is None else f"{value:.6f}"


def _two(counts: tuple[int, int] | None) -> str:
    """On both sides: ``0 -> 3``; nothing where there are none."""
    return f"{counts[0]:,} -> {counts[1]:,}" if counts and any(counts) else ""


def _cast(pair: PairValues) -> str:
    """Of a re-typed tensor; the dtypes stand above."""
    return {True: "exact", False: "not exact", None: ""}[pair.found.exact_cast]


def _data(pair: PairValues) -> dict[str, Any]:
    found = pair.found
    return {
        "key": pair.before.key,
        "dtypes": [pair.before.dtype, pair.after.dtype],
        "elements": found.elements,
        "differ": found.differ,
        "max_abs": found.max_abs,
        "mean_abs": found.mean_abs,
        "relative_l2": found.relative_l2,
        "cosine": found.cosine,
        "max_ulps": found.max_ulps,
        "nan": found.nan,
        "inf": found.inf,
        "left_out": found.left_out,
        "incomparable": found.incomparable,
        "exact_cast": found.exact_cast,
    }

"""How far apart values are: the last part of `ckpt diff --values`."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ckpt.ops.diff import PairValues, RefDiff
from ckpt.show.look.tables import Table
from ckpt.show.look.words import count

ROWS = 20  # unless --all
HEADS = ("key", "differ", "max abs", "mean abs", "rel L2", "cosine", "ulps", "NaN", "Inf", "cast")


def values_table(diff: RefDiff, *, all_rows: bool) -> Table:
    """The tensors with other values, largest change first, without empty columns.

    One that probably was renamed has its new key, as in `stat_table`.
    """
    pairs = diff.values or ()
    rows = [_pair_row(pair) for pair in (pairs if all_rows else pairs[:ROWS])]
    spare = ("ulps", "mean abs", "cosine")
    return Table(HEADS, rows, right=HEADS[1:], spare=spare).without_empty_columns()


def values_notes(diff: RefDiff, *, all_rows: bool) -> Iterator[str]:
    """How many rows were left out, and how many tensors are within the tolerance."""
    more = len(diff.values or ()) - ROWS
    if more > 0 and not all_rows:
        yield f"  {more:,} more changed less; --all lists them"
    if diff.tolerance is not None:
        yield ""
        yield (
            f"  {count(diff.beyond, 'key')} changed by more than {diff.tolerance:g} · "
            f"{len(diff.within):,} within"
        )


def values_data(diff: RefDiff) -> dict[str, Any]:
    """The same for JSON, with all rows."""
    return {
        "tolerance": diff.tolerance,
        "within": [pair.before.key for pair in diff.within],
        "values": None if diff.values is None else [_pair_data(p) for p in diff.values],
    }


def _pair_row(pair: PairValues) -> list[str]:
    found = pair.found
    return [
        pair.after.key,
        f"{found.differ:,} of {found.elements:,}",
        *map(_three_digits, (found.max_abs, found.mean_abs, found.relative_l2)),
        "" if found.cosine is None else f"{found.cosine:.6f}",
        "" if found.max_ulps is None else f"{found.max_ulps:,}",
        _two(found.nan),
        _two(found.inf),
        {True: "exact", False: "not exact", None: ""}[found.exact_cast],
    ]


def _three_digits(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _two(counts: tuple[int, int] | None) -> str:
    """Counts on both sides, ``0 -> 3``; nothing if both are 0."""
    return f"{counts[0]:,} -> {counts[1]:,}" if counts and any(counts) else ""


def _pair_data(pair: PairValues) -> dict[str, Any]:
    dtypes = [pair.before.dtype, pair.after.dtype]
    new = None if pair.after.key == pair.before.key else pair.after.key
    return {"key": pair.before.key, "new": new, "dtypes": dtypes, **asdict(pair.found)}

"""The difference as a report: for Markdown, for a page, and in parts for the text."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from ckpt.ops.diff import RefDiff
from ckpt.show.audit import code_text
from ckpt.show.diff.changes import change_rows, changed_keys, stat_table
from ckpt.show.diff.records import facts_table
from ckpt.show.diff.side_files import files_table
from ckpt.show.diff.values import values_notes, values_table
from ckpt.show.look.tables import Group, Report, Table
from ckpt.show.look.words import count, first_names, printable, size
from ckpt.tensors import NOT_A_TENSOR

_WORDS = ("removed", "added", "renamed", "renamed?", "reshaped", "re-typed", "changed")


def diff_report(
    diff: RefDiff, *, stat: bool = False, records: bool = False, all_values: bool = False
) -> Report:
    """The difference for Markdown and HTML; the others are options of `ckpt diff`."""
    if diff.fitting is not None:
        from ckpt.show.diff.fit import fit_report

        return fit_report(diff, diff.fitting)
    rows = [*map(list, change_rows(diff.diff, diff.inferred))]
    changes = stat_table(diff.diff, diff.inferred) if stat else Table(["", "keys", ""], rows)
    others = tables(diff, records=records, all_values=all_values)
    verdict, mood = _verdict(diff)
    return Report(
        answer(diff),
        [changes, *others] if changes.rows else [*others],
        [*remarks(diff), *values_notes(diff, all_rows=all_values)],
        verdict=verdict,
        mood=mood,
        groups=_groups(diff),
    )


def answer(diff: RefDiff) -> str:
    """``mnist-cnn:v1 -> mnist-cnn:v2``."""
    return f"{printable(diff.before)} -> {printable(diff.after)}"


def _verdict(diff: RefDiff) -> tuple[str, str]:
    """``differs: 4 renamed, 8 the same``, and its mood."""
    keys = diff.diff
    counts = Counter(word for word, _, _ in changed_keys(keys, diff.inferred))
    parts = [f"{counts[word]:,} {word}" for word in _WORDS if counts[word]]
    parts += [f"{count(len(diff.files), 'side file')}"] if diff.files else []
    parts += [f"{len(keys.same):,} the same"] if keys.same else []
    parts += [f"{len(keys.unread):,} not compared"] if keys.unread else []
    unread = bool(keys.unread or diff.unread_bytes)
    word = "differs" if diff.differs else "not compared" if unread else "no difference"
    mood = "notable" if diff.differs or unread else "good"
    return f"{word}: {', '.join(parts)}" if parts else word, mood


def _groups(diff: RefDiff) -> list[Group]:
    """The changed keys by module, in order of first appearance."""
    found: defaultdict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for row in changed_keys(diff.diff, diff.inferred):
        found[row[1].rpartition(".")[0]].append(row)
    return [Group(name, rows) for name, rows in found.items()]


def remarks(diff: RefDiff) -> Iterator[str]:
    """What was not compared, that nothing differs, and which side runs code when unpickled."""
    opaque = [a.key for a, _ in diff.diff.unread if a.dtype == NOT_A_TENSOR]
    if diff.unread_bytes:
        yield f"  not compared: {size(diff.unread_bytes)} of values; --values reads them"
    elif not (diff.diff.differs or diff.files or opaque):
        yield "  no difference"
    if opaque:
        what = "is not a plain value" if len(opaque) == 1 else "are not plain values"
        yield f"  not compared: {first_names(opaque)}, which {what}"
    for name, code in diff.code.items():
        yield f"  {printable(name)}: {code_text(code)}"


def tables(diff: RefDiff, *, records: bool, all_values: bool) -> Iterator[Table]:
    """The tables of values, of side files and of records, as far as there are some."""
    if diff.values:
        yield values_table(diff, all_rows=all_values)
    if diff.files:
        yield files_table(diff.files, diff.before, diff.after)
    if diff.facts and records:
        yield facts_table(diff.facts, diff.before, diff.after)

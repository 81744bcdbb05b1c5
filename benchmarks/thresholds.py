"""How sure the inference is, and how often it is wrong: the stated margin against the true error.

    python benchmarks/thresholds.py [--quick]

The pairs of `tests/data/pairs` and `tests/data/saved` are divided in two by the checksum of their
names. On one half each threshold is changed; the least value without a wrong likely key would be
chosen. The other half judges: its counts are printed beside, and the margins of all its keys.
"""

import argparse
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from infer import PAIRS, Pair, entries_of
from quick import parse_options
from tabulate import tabulate

from ckpt.infer import engine
from ckpt.infer.match import align, fused, group
from ckpt.infer.result import Confidence, Match

SAVED = PAIRS.with_name("saved")
CHANGES: Mapping[str, tuple[float, ...]] = {
    "STRONG": (0.1, 0.15, 0.3),
    "WEAK": (0.0, 0.02, 0.08),
    "PLAUSIBLE": (0.1, 0.4),
}
MODULES: tuple[ModuleType, ...] = (engine, align, fused, group)
BINS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", default=",".join(CHANGES), help="thresholds to change")
    options = parse_options(parser, changes="")
    chosen, judged = halves(at_most=2 if options.quick else None)
    rows = [["none", *counted(chosen), *counted(judged)]]
    for name in filter(None, options.changes.split(",")):
        for value in CHANGES[name]:
            with changed(name, value):
                rows.append([f"{name} = {value}", *counted(chosen), *counted(judged)])
    heads = [f"{len(half)} pairs: {what}" for half in (chosen, judged)
             for what in ("likely", "ambiguous")]  # fmt: skip
    print(tabulate(rows, ["changed", *heads], disable_numparse=True))
    print()
    print(margins(judged))


def halves(*, at_most: int | None) -> tuple[list[Path], list[Path]]:
    """The pairs from which thresholds are chosen, and those that judge; the smallest of each."""
    paths = sorted([*PAIRS.glob("*.json"), *SAVED.glob("*.json")], key=lambda p: p.stat().st_size)
    sides: tuple[list[Path], list[Path]] = ([], [])
    for path in paths:
        sides[zlib.crc32(path.stem.encode()) % 2].append(path)
    return sides[0][:at_most], sides[1][:at_most]


@contextmanager
def changed(name: str, value: float) -> Iterator[None]:
    """One threshold has another value in all modules that use it."""
    users = [module for module in MODULES if hasattr(module, name)]
    before = getattr(group, name)
    try:
        for module in users:
            setattr(module, name, value)
        yield
    finally:
        for module in users:
            setattr(module, name, before)


def judgements(path: Path) -> Iterator[tuple[Match, bool]]:
    """Each match of a pair, and whether it is right."""
    pair: Pair = json.loads(path.read_text())
    source, target = entries_of(pair, digests=False)
    true = {(old, new) for old, new, *_ in pair["pairs"]}
    for each in pair["ops"]:
        olds, news = (
            [keys] if isinstance(keys, str) else keys for keys in (each["old"], each["new"])
        )
        true -= {(old, new) for old in olds for new in news}
    for match in engine.infer(source, target).matches:
        yield match, (match.source, match.target) in true


def counted(paths: list[Path]) -> list[str]:
    """Likely and ambiguous keys, and in brackets how many of them are wrong."""
    counts = Counter(
        (match.confidence, right) for path in paths for match, right in judgements(path)
    )
    return [
        f"{counts[level, True] + counts[level, False]:,} ({counts[level, False]:,})"
        for level in (Confidence.LIKELY, Confidence.AMBIGUOUS)
    ]


def margins(paths: list[Path]) -> str:
    """The keys that are not ambiguous by their margins, and how many of them are wrong."""
    right, wrong = Counter[float](), Counter[float]()
    for path in paths:
        for match, is_right in judgements(path):
            if match.confidence is not Confidence.AMBIGUOUS:
                least = max(edge for edge in BINS if match.margin >= edge)
                (right if is_right else wrong)[least] += 1
    rows = []
    for low, high in zip(BINS, [*BINS[1:], None], strict=True):
        total = right[low] + wrong[low]
        if total:
            share = f"{wrong[low] / total:.2%}"
            rows.append([f"{low:g} to {high:g}" if high else f"{low:g}", total, wrong[low], share])
    return tabulate(rows, ["margin", "keys", "wrong", "error"], disable_numparse=True)


if __name__ == "__main__":
    main()

"""Measure the guard's own work with 1,000 migrations of a class with 2,000 keys.

Building the class is left out: its keys are given. CPU seconds of this process.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time

from quick import parse_options

from ckpt.loading import Answer
from ckpt.migrate.described import Described
from ckpt.migrate.folder import Place
from ckpt.migrate.migration import Checked, Migration
from ckpt.migrate.schema import Schema, fold_all, schema_of
from ckpt.ops.guard.verdicts import Verdict, verdicts_on
from ckpt.ops.guard.weights import Weights
from ckpt.rules.document import read_rules
from ckpt.tensors import StateDict, TensorEntry

PARTS = ("attn.q", "attn.k", "attn.v", "attn.proj", "norm1", "mlp.fc1", "mlp.fc2", "norm2")
DEFINITION = "net.py:Net"


def state(number: int, *, keys: int, folds: bool) -> StateDict:
    """The keys of the class after `number` refactorings, each of which renames the head.

    Args:
        number: How many refactorings.
        keys: How many keys.
        folds: Whether its blocks are alike; else each has names of its own.
    """
    blocks = (keys - 2) // (2 * len(PARTS))
    entries = [
        TensorEntry(f"blocks.{n}.{part}.{leaf}" if folds else f"b{n}x.{part}.{leaf}", "float32",
                    (64, 64) if leaf == "weight" else (64,))
        for n in range(blocks) for part in PARTS for leaf in ("weight", "bias")
    ]  # fmt: skip
    entries += [TensorEntry(f"head{number}x.{leaf}", "float32", (64,)) for leaf in ("w", "b")]
    return StateDict(tuple(entries), versions={"": {"version": 1}})


def write(folder: Path, *, count: int, keys: int, folds: bool) -> None:
    """Write the migrations of all refactorings."""
    before = fold_all([schema_of(state(0, keys=keys, folds=folds))])
    for number in range(1, count + 1):
        after = fold_all([schema_of(state(number, keys=keys, folds=folds))])
        rules = read_rules([{"rename": f"head{number - 1}x->head{number}x"}], name="")
        name = f"head-{number}"
        checked = Checked("fitted", (DEFINITION,))
        made = Migration(name, (DEFINITION,), name, tuple(rules), before, after, checked)
        (folder / f"{name}.toml").write_text(made.text)
        before = after


def ask(accepted: Schema) -> Callable[[StateDict], Answer]:
    """Stands for torch, which another process asks."""

    def answer(given: StateDict) -> Answer:
        mine, wanted = {it.key for it in given.entries}, {it.key for it in accepted.entries}
        return Answer(missing=tuple(wanted - mine), unexpected=tuple(mine - wanted))

    return answer


def measure(folder: Path, *, behind: int, count: int, keys: int, folds: bool) -> float:
    """Seconds for a checkpoint of so many refactorings before the last."""
    described = Described(DEFINITION, None, state(count, keys=keys, folds=folds))
    old = Weights("net:v1", state(count - behind, keys=keys, folds=folds))
    begin = process_time()
    place = Place(folder, DEFINITION)
    (verdict,) = verdicts_on([old], described, place, place.graph(), ask(described.schema))
    seconds = process_time() - begin
    assert isinstance(verdict, Verdict)
    assert not verdict.broken
    return seconds


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--migrations", type=int, default=1_000)
    parser.add_argument("--keys", type=int, default=2_000)
    parser.add_argument("--unlike", action="store_true", help="no two blocks have the same keys")
    options = parse_options(parser, migrations=120, keys=200)
    given = {"count": options.migrations, "keys": options.keys, "folds": not options.unlike}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder, **given)
        nbytes = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{options.migrations:,} migrations, {nbytes / 1e6:,.1f} MB")
        for behind in (0, 1, 10, 100):
            print(f"  {behind:>5,} behind  {measure(folder, behind=behind, **given):8.2f} s")


if __name__ == "__main__":
    main()

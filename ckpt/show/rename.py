"""Show a rename: the plan, whether the result fits, and what was written."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ckpt.ops.rename import Renamed, RenamePlan
from ckpt.rules.expressions import (
    Averaged,
    Cast,
    Copied,
    Expression,
    Filled,
    Joined,
    Merged,
    Narrowed,
    Permuted,
    Reshaped,
    Resized,
    Source,
)
from ckpt.rules.plan import Plan
from ckpt.rules.prefixes import Unwrap, wrappers_of
from ckpt.show.export import also_named_text, left_out_text, written_data, written_text
from ckpt.show.look.fields import fields
from ckpt.show.look.folding import Folded, fold
from ckpt.show.look.words import count, first_names, printable, shape

if TYPE_CHECKING:
    from ckpt.ops.rename.training.optimizers import MovedOptimizer
    from ckpt.prove.result import Proof
    from ckpt.writing.moments import RegroupedOptimizer

MOST_LINES = 8  # more renamed keys than this are folded


def renamed_text(renamed: Renamed) -> str:
    """The plan, then the verdict, then what was written."""
    parts = [plan_text(renamed.plan)]
    if renamed.written:
        parts.append(written_text(renamed.written))
        also = also_named_text(renamed.written)
        parts += [f"  {also}"] if also else []
        if renamed.followed_files:
            how = "with the parameters" if renamed.plan.made else "in the order"
            parts.append(f"  {first_names(renamed.followed_files)} {how} of the new class")
    if renamed.left_behind:
        parts.append(
            f"  not renamed in {first_names(renamed.left_behind)}, which {_have(renamed)} the old "
            "keys; --all  renames them too"
        )
    if renamed.saved:
        parts.append(f"saved the rules in {printable(str(renamed.saved))}")
    if renamed.added:
        from ckpt.show.register import added_text

        parts.append(added_text(renamed.added))
    left = left_out_text(renamed.written.left_out if renamed.written else renamed.left_out)
    parts += [f"  {left}"] if left else []
    if renamed.mentions:
        parts.append(f"  not changed, but names what is renamed: {first_names(renamed.mentions)}")
    if not (renamed.written or renamed.added):
        fits = not renamed.plan.applied and not renamed.plan.undoes
        parts.append("nothing to rename" if fits else "nothing written (--dry-run)")
    return parts[0] + "\n\n" + "\n".join(parts[1:])


def _have(renamed: Renamed) -> str:
    return "has" if len(renamed.left_behind) == 1 else "have"


def order_text(renamed: Renamed) -> str | None:
    """What was not checked about the optimizers of the result, if anything."""
    paths = renamed.in_old_order
    if not paths:
        return None
    keep = "keeps its" if len(paths) == 1 else "keep their"
    return f"{first_names(paths)} {keep} order; --check DEF  compares it with the new class"


def optimizer_files_text(renamed: Renamed) -> str | None:
    """The files beside the weights whose optimizer does not follow, if any."""
    if renamed.unfollowed:
        return f"no optimizer is written: {printable(renamed.unfollowed)}"
    names = renamed.optimizer_files
    if not names:
        return None
    stays, its = ("stays as it is", "its") if len(names) == 1 else ("stay as they are", "their")
    return f"{first_names(names)} {stays}; the new class may not have {its} order of parameters"


def plan_text(plan: RenamePlan) -> str:
    """Every tensor that changes, folded if they are many, and the number of the others."""
    verdict = f"  {', '.join(_counts(plan))}"
    if plan.fitting and plan.fitting.accepted:
        from ckpt.show.diff.fit import fits_text

        verdict += f" · {fits_text(plan.fitting)}"
    for optimizer in plan.optimizers:
        verdict += f" · {printable(optimizer.path)}: {_followed(optimizer)}"
    for regrouped in plan.regrouped:
        verdict += f" · {printable(regrouped.path)}: {_regrouped(regrouped)}"
    parts = (_renames, _made, _dropped, _stay_new, _unwrapped, _by_rule, _found_rules, _migrations)
    lines = [*(line for part in parts for line in part(plan)), verdict]
    return "\n".join([*lines, *(proof_lines(plan.proof) if plan.proof else ())])


def proof_lines(proof: "Proof") -> Iterator[str]:
    """What is proved, and by what; and what is not, and why."""
    largest = max(it for it in proof.largest if it is not None)
    on = "one input" if proof.dtype == "float64" else f"one input in {proof.dtype}"
    if proof.seeded:
        on += " from one seed, as forward draws random numbers"
    total = len(proof.influential) + len(proof.unproved)
    some = f"{len(proof.influential):,} of {total:,}" if proof.unproved else f"all {total:,}"
    verb = "influences" if len(proof.influential) == 1 else "influence"
    by = " (by gradient)" if proof.by_gradient else ""
    who = f"{some} tensors {verb}" if total > 1 else "its tensor influences"
    yield f"  proved: outputs agree on {on} (difference {largest:.2g}); {who} them{by}"
    if proof.largest[1] is None:
        yield "  with random weights the outputs are not finite; only these weights were compared"
    for why in dict.fromkeys(it.why for it in proof.unproved):
        for folded in fold([(it.key,) for it in proof.unproved if it.why == why]):
            yield f"  not proved: {folded.text}{folded.note}   {why}"


def changes_lines(plan: Plan) -> list[str]:
    """Every tensor that changes, folded if they are many."""
    return [*_renames(plan), *_made(plan), *_dropped(plan)]


def _followed(optimizer: "MovedOptimizer") -> str:
    """What becomes of the state of an optimizer's parameters."""
    if not optimizer.dropped:
        return f"state of {count(optimizer.parameters, 'parameter')} moved to the new order"
    return f"state of {count(optimizer.dropped, 'parameter')} dropped"


def _regrouped(optimizer: "RegroupedOptimizer") -> str:
    """What becomes of its state if operations make other parameters."""
    before, after, new = optimizer.parameters, optimizer.made, len(optimizer.new)
    text = f"state of {count(before, 'parameter')} carried over to {after - new:,}"
    return f"{text}, {new:,} without state" if new else text


def _found_rules(plan: RenamePlan) -> Iterator[str]:
    """How certain the mapping is, and the rules that were found."""
    if plan.found is not None:
        from ckpt.infer.settled import PROOF
        from ckpt.show.diff.mapping import rules_lines, sureness

        yield f"  found for {printable(plan.found.target)}: {sureness(plan.found)}"
        if plan.found.provable and not plan.found.inference.certain:
            yield f"  to be sure:  {PROOF}"
        yield from rules_lines(plan.found)


def _migrations(plan: RenamePlan) -> Iterator[str]:
    if plan.way is not None:
        yield f"  by {printable(plan.way.names)}"


def _renames(plan: Plan) -> list[str]:
    pairs = [(change.old, change.new) for change in plan.renamed]
    pairs += plan.aliases.items()
    many = len(pairs) > MOST_LINES
    lines = fold(pairs) if many else [Folded(pair, 1) for pair in pairs]
    rows = [(*map(printable, line.cells), count(line.count, "key")) for line in lines]
    wide, wide_new = (max((len(row[side]) for row in rows), default=0) for side in (0, 1))
    if not many:
        return [f"  {old:<{wide}}  ->  {new}" for old, new, _ in rows]
    return [f"  {old:<{wide}}  ->  {new:<{wide_new}}   {keys}" for old, new, keys in rows]


def _made(plan: Plan) -> Iterator[str]:
    """The tensors that operations make, folded."""
    lines = fold([(made.key, expression_text(made.made_of)) for made in plan.made])
    wide = max((len(printable(line.cells[0])) for line in lines), default=0)
    for line in lines:
        made, of = map(printable, line.cells)
        yield f"  {made:<{wide}}  =   {of}{line.note}"


def _dropped(plan: Plan) -> Iterator[str]:
    for line in fold([(dropped.key,) for dropped in plan.dropped]):
        yield f"  {line.text}  dropped{line.note}"


def _stay_new(plan: RenamePlan) -> Iterator[str]:
    """The keys that a partial fit leaves new, and those that are unexpected."""
    if plan.fitting is None or not plan.fitting.in_part:
        return
    shapes = {
        theirs.key: f"another shape: {shape(mine.shape)}, expected {shape(theirs.shape)}"
        for mine, theirs in plan.fitting.reshaped
    }
    missing = [entry.key for entry in plan.fitting.fit.missing]
    for why in dict.fromkeys(shapes.get(key, "") for key in missing):
        for line in fold([(key,) for key in missing if shapes.get(key, "") == why]):
            verb = "stays new" if line.count == 1 else "stay new"
            yield f"  {line.text}  {verb}{line.note}{why and f'   {why}'}"
    for line in fold([(entry.key,) for entry in plan.fitting.fit.unexpected]):
        yield f"  {line.text}  unexpected, kept{line.note}"


def _by_rule(plan: RenamePlan) -> Iterator[str]:
    """How many keys every rule changed, if there are several rules."""
    if len(plan.rules) < 2 or plan.found is not None:  # those are shown by `_found_rules`
        return
    for number, text in enumerate(plan.rules, start=1):
        yield f"  rule {number}  {count(plan.touched(number), 'key')}  {printable(text)}"


def _unwrapped(plan: Plan) -> Iterator[str]:
    """The wrappers that were removed."""
    for number, text in enumerate(plan.rules, start=1):
        if text == Unwrap().text:
            own = (change for change in plan.renamed if change.rules == (number,))
            found = dict.fromkeys(
                part for change in own for part in wrappers_of(change.old, change.new)
            )
            if found:
                yield f"  unwrapped  {printable(', '.join(found))}"


def _counts(plan: RenamePlan) -> Iterator[str]:
    renamed, kept = len(plan.renamed), len(plan.tensors) - len(plan.made)
    yield f"{count(renamed, 'key')} renamed"
    others = sum(name in plan.others for name in plan.aliases)
    if tied := len(plan.aliases) - others:
        yield f"{count(tied, 'tied name')} renamed"
    if others:
        yield f"{count(others, 'key')} without a tensor renamed"
    if plan.made:
        yield f"{len(plan.made):,} made"
    if plan.dropped:
        yield f"{len(plan.dropped):,} dropped"
    yield f"{kept - renamed:,} kept"


def expression_text(made: Expression) -> str:
    """How a tensor is made, e.g. ``part 1 of 3 of blocks.0.qkv.weight``."""
    match made:
        case Source(key=key):
            return key
        case Permuted(of=inner, dims=dims):
            exchanged = sum(at != dim for at, dim in enumerate(dims)) == 2
            word = "transpose" if exchanged else f"permute {shape(dims)}"
            return f"{word}({expression_text(inner)})"
        case Reshaped(of=inner):
            return f"reshape({expression_text(inner)}, {shape(made.shape)})"
        case Narrowed(of=inner):
            return f"{_part(made)} of {expression_text(inner)}"
        case Joined(parts=parts, dim=dim):
            return f"concat({', '.join(map(expression_text, parts))}, dim {dim})"
        case Cast(of=inner, dtype=dtype):
            return f"cast({expression_text(inner)}, {dtype})"
        case Copied(of=inner):
            return f"copy({expression_text(inner)})"
        case Merged(of=inner, other=other):
            return f"{expression_text(inner)}, to which {expression_text(other)} must be equal"
        case Averaged(of=inner, dim=dim, length=length):
            return f"{length} × mean({expression_text(inner)}, dim {dim})"
        case Resized(of=inner, old=old, new=new, mode=mode):
            return f"resize({expression_text(inner)}, {shape(old)} to {shape(new)}, {mode})"
        case Filled(dtype=dtype, value=value):
            return f"new, {dtype} {shape(made.shape)}, all {value:g}".replace(" ()", " scalar")


def _part(made: Narrowed) -> str:
    """A part of a tensor, e.g. ``part 2 of 3``; for unequal parts ``2048:2304``."""
    whole, along = made.of.shape[made.dim], f" along dim {made.dim}" if made.dim else ""
    if made.length and whole % made.length == 0 and made.start % made.length == 0:
        number, count = made.start // made.length + 1, whole // made.length
        return f"part {number} of {count}{along}"
    return f"{made.start}:{made.start + made.length}{along}"


def renamed_data(renamed: Renamed) -> dict[str, Any]:
    """The same for JSON."""
    from ckpt.show.diff.fit import fitting_data
    from ckpt.show.diff.mapping import found_data
    from ckpt.show.register import added_data

    plan = renamed.plan
    return {
        "source": plan.name,
        "rules": plan.rules,
        "touched": [plan.touched(number) for number in range(1, len(plan.rules) + 1)],
        "keys": [asdict(change) for change in plan.changes],
        "made": [
            {
                "key": tensor.key,
                "of": expression_text(tensor.made_of),
                **fields(tensor, "dtype=made_of.dtype", "shape=made_of.shape", "rules"),
            }
            for tensor in plan.made
        ],
        "dropped": [asdict(dropped) for dropped in plan.dropped],
        "fit": fitting_data(plan.fitting) if plan.fitting else None,
        "found": found_data(plan.found) if plan.found else None,
        "migrations": [step.name for step in plan.way.steps] if plan.way else [],
        "proof": proof_data(plan.proof) if plan.proof else None,
        "optimizers": [asdict(optimizer) for optimizer in plan.optimizers],
        "regrouped": [fields(it, "path", "groups", "new") for it in plan.regrouped],
        "written": written_data(renamed.written) if renamed.written else None,
        "added": added_data(renamed.added) if renamed.added else None,
        **fields(renamed, "left_out", "mentions", "dropped_objects=dropped", "saved_rules=saved"),
        **fields(renamed, "left_behind", "in_old_order", "optimizer_files"),
        **fields(renamed, "followed_files", "unfollowed"),
    }


def proof_data(proof: "Proof") -> dict[str, Any]:
    """A proof for JSON."""
    return {
        **fields(proof, "shape", "dtype", "largest", "outputs", "seeded", "by_gradient"),
        "inputs": [asdict(given) for given in proof.inputs],
        "influential": list(proof.influential),
        "unproved": [asdict(left) for left in proof.unproved],
    }

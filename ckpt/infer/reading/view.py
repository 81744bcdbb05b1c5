"""A tensor as it is compared, and how its side has it.

One side may have the tensor under a name without dots, transposed, or as one tensor for each
expert. The inference compares both sides in one form; its result is translated back.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ckpt.infer.result import Confidence, Inference, InferredOperation, Match
from ckpt.tensors import TensorEntry

if TYPE_CHECKING:
    from ckpt.compare.samples import Samples

Dims = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class View:
    """A tensor as it is compared.

    Attributes:
        entry: Its key is the dotted reading; its shape is that which both sides have.
        keys: The tensors of the side that make it up; several if they are stacked, those of one
            slice next to one another.
        verb: What makes it of them: ``permute``, ``reshape`` or ``stack``; empty for nothing.
        dims: The order of the dimensions that gives a permuted tensor; those of the slices in a
            stack, if they change.
        sizes: Of the parts of one slice along its first dimension, if it has several.
        evidence: Why it is read so, in words.
        is_sure: Whether no other form is as likely.
    """

    entry: TensorEntry
    keys: tuple[str, ...]
    verb: str = ""
    dims: Dims = ()
    sizes: tuple[int, ...] = ()
    evidence: str = ""
    is_sure: bool = True


Views = dict[str, View]


def renamed(samples: "Samples", views: Views) -> "Samples":
    """Samples by the readings of the tensors that are compared as they are."""
    plain = ((name, view.keys[0]) for name, view in views.items() if not view.verb)
    return {name: samples[key] for name, key in plain if key in samples}


def translated(found: Inference, sides: tuple[Views, Views]) -> Inference:
    """The result for the tensors that the two sides really have."""
    mine, theirs = sides
    matches, operations = list[Match](), list[InferredOperation]()
    dropped, missing = _keys(found.dropped, mine), _keys(found.missing, theirs)
    for match in found.matches:
        old, new = mine[match.source], theirs[match.target]
        if not old.verb and not new.verb:
            candidates = _candidates(match, theirs)
            pair = replace(match, source=old.keys[0], target=new.keys[0], candidates=candidates)
            matches.append(pair)
        elif old.verb and new.verb:  # no rule does both at once
            dropped += old.keys
            missing += new.keys
        else:
            operations.append(_operation(old, new, match))
    for one in found.operations:
        ones, others = ([side[key] for key in keys]
                        for side, keys in ((mine, one.sources), (theirs, one.targets)))  # fmt: skip
        if any(view.verb for view in (*ones, *others)):
            dropped += [key for view in ones for key in view.keys]
            missing += [key for view in others for key in view.keys]
        else:
            sources, targets = _keys(one.sources, mine), _keys(one.targets, theirs)
            operations.append(replace(one, sources=(*sources,), targets=(*targets,)))
    return Inference((*matches,), (*operations,), (*dropped,), (*missing,), found.copies)


def _keys(names: Iterable[str], views: Views) -> list[str]:
    return [key for name in names for key in views[name].keys]


def _candidates(match: Match, theirs: Views) -> tuple[str, ...]:
    return tuple(theirs[name].keys[0] if name in theirs else name for name in match.candidates)


def _operation(old: View, new: View, match: Match) -> InferredOperation:
    """The operation that makes one view of another; one of them is a tensor as it is."""
    view, backwards = (old, False) if old.verb else (new, True)
    sure = view.is_sure and match.confidence is not Confidence.AMBIGUOUS
    dims = _inverse(view.dims) if backwards else view.dims
    verb = "unstack" if backwards and view.verb == "stack" else view.verb
    if verb == "permute" and dims == (1, 0):
        verb, dims = "transpose", ()
    return InferredOperation(
        verb,
        old.keys,
        new.keys,
        Confidence.LIKELY if sure else Confidence.AMBIGUOUS,
        match.margin if sure else 0.0,
        sizes=view.sizes,
        evidence=view.evidence,
        dims=dims,
    )


def _inverse(dims: Dims) -> Dims:
    return tuple(sorted(range(len(dims)), key=dims.__getitem__))


def permuted(shape: Sequence[int], dims: Dims) -> tuple[int, ...]:
    """A shape with its dimensions in another order."""
    return tuple(shape[dim] for dim in dims)

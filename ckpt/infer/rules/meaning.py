"""What an inference makes of the tensors of the source, as expressions over them.

Law: rules do what an inference says if the `meaning` of each planned tensor is that in `made_by`.
"""

from collections.abc import Mapping, Sequence

from ckpt.infer.result import Inference, InferredOperation
from ckpt.rules import expressions as ex
from ckpt.rules.derived.simplified import simplified
from ckpt.rules.expressions import Copied, Expression, Source
from ckpt.tensors import TensorEntry

Shapes = Mapping[str, tuple[int, ...]]


def made_by(
    inference: Inference, source: Sequence[TensorEntry], shapes: Shapes
) -> dict[str, Expression]:
    """The tensors of the result by key, simplified.

    Args:
        inference: The mapping.
        source: The tensors of the source.
        shapes: The shapes of the target by key.

    Raises:
        PlanError: An operation does not fit the tensors.
    """
    of = {it.key: Source(it.key, it.dtype, it.shape) for it in source}
    made: dict[str, Expression] = {it.target: of[it.source] for it in inference.matches}
    for one in inference.operations:
        parts = _made(one, [of[key] for key in one.sources], shapes)
        made.update(zip(one.targets, map(simplified, parts), strict=True))
    return made


def meaning(made: Expression) -> Expression:
    """A planned tensor, simplified; a copy has the elements of the original."""
    return simplified(made.of if isinstance(made, Copied) else made)


def _made(
    one: InferredOperation, parts: Sequence[Expression], shapes: Shapes
) -> Sequence[Expression]:
    first, count = parts[0], len(one.targets)
    match one.verb:
        case "transpose":
            return [ex.transposed(first, 0, 1)]
        case "permute":
            return [ex.permuted(first, one.dims)]
        case "reshape":
            return [ex.reshaped(first, shapes[one.targets[0]])]
        case "split":
            return ex.split(first, one.dim, count, one.sizes or None)
        case "concat":
            return [ex.joined(parts, one.dim)]
        case "stack":
            return [_stacked(one, parts)]
        case _:
            return _unstacked(one, first)


def _stacked(one: InferredOperation, parts: Sequence[Expression]) -> Expression:
    size = max(1, len(one.sizes))
    slices = [parts[at : at + size] for at in range(0, len(parts), size)]
    joint = [ex.joined(some, 0) if size > 1 else some[0] for some in slices]
    whole = ex.joined([ex.unsqueezed(each, 0) for each in joint], 0)
    return ex.permuted(whole, _behind(one.dims)) if one.dims else whole


def _unstacked(one: InferredOperation, whole: Expression) -> list[Expression]:
    size = max(1, len(one.sizes))
    turned = ex.permuted(whole, _behind(one.dims)) if one.dims else whole
    slices = [ex.squeezed(it, 0) for it in ex.split(turned, 0, len(one.targets) // size)]
    return [
        it for each in slices for it in (ex.split(each, 0, size, one.sizes) if size > 1 else [each])
    ]


def _behind(dims: Sequence[int]) -> list[int]:
    """The order of dimensions of slices, for a tensor that they are stacked in."""
    return [0, *(dim + 1 for dim in dims)]

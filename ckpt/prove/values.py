"""Values of expressions over a state_dict, and random ones in their place."""

import math
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ckpt.prove.runs import State
from ckpt.rules.expressions import Expression
from ckpt.tensors import with_versions
from ckpt.writing.evaluated import evaluated

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_SPREAD = 0.3  # of random numbers where a tensor has one value


def all_evaluated(made: Mapping[str, Expression], state: State) -> "dict[str, Tensor]":
    """The values of expressions, by key."""
    return {key: evaluated(expression, state) for key, expression in made.items()}


def random_state(state: State, keys: Collection[str], same: Mapping[str, str]) -> State:
    """A state_dict with random numbers of the same kind; integers stay.

    Args:
        state: The tensors.
        keys: Of the tensors that change.
        same: Keys whose tensor must stay equal to that of another key, and this one.
    """
    import torch

    generator = torch.Generator().manual_seed(1)
    drawn: OrderedDict[str, Tensor] = OrderedDict()
    for key, tensor in state.items():
        drawn[key] = tensor
        if key in keys and _is_inexact(tensor):
            drawn[key] = redrawn(tensor, generator)
    for key, other in same.items():
        drawn[key] = drawn[other]
    return with_versions(drawn, getattr(state, "_metadata", None))


def same_result(
    one: Mapping[str, Expression], other: Mapping[str, Expression], state: State
) -> bool:
    """Whether two ways of making tensors give the same ones, of random numbers as well."""
    import torch

    drawn = random_state(state, {*state}, {})
    return one.keys() == other.keys() and all(
        torch.equal(evaluated(made, values), evaluated(other[key], values))
        for key, made in one.items()
        for values in (state, drawn)
    )


def redrawn(tensor: "Tensor", generator: "torch.Generator") -> "Tensor":
    """Other elements of the same kind, in double precision if they are not integers.

    Matrices and kernels get a mean of zero and about their own size, at most that which keeps a
    network from exploding; vectors their own mean and spread, and if all of it is positive, as a
    variance is, it stays so.
    Integers keep their values in another order, so that indices stay valid.
    """
    import torch

    if not tensor.numel():
        return tensor
    if not _is_inexact(tensor):
        return _reordered(tensor, generator)
    wide = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
    wide = torch.where(wide.isfinite(), wide, torch.zeros_like(wide))
    noise = torch.randn(wide.shape, generator=generator, dtype=wide.dtype)
    if wide.ndim > 1:
        most = math.sqrt(wide.shape[0] / wide.numel())  # outputs are as large as inputs then
        return noise * min(float(wide.abs().square().mean().sqrt()) or most, most)
    if not wide.is_complex() and bool((wide > 0).all()):
        order = torch.randperm(wide.numel(), generator=generator)
        return wide.flatten()[order].reshape(wide.shape) * (_SPREAD * noise).exp()
    spread = float(wide.std()) if wide.numel() > 1 else 0.0
    return wide.mean() + noise * (spread or _SPREAD)


def _reordered(tensor: "Tensor", generator: "torch.Generator") -> "Tensor":
    import torch

    order = torch.randperm(tensor.numel(), generator=generator)
    shuffled = tensor.flatten()[order].reshape(tensor.shape)
    if not torch.equal(shuffled, tensor):
        return shuffled
    return tensor.logical_not() if tensor.dtype == torch.bool else tensor + 1


def _is_inexact(tensor: "Tensor") -> bool:
    return tensor.is_floating_point() or tensor.is_complex()

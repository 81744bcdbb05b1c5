"""Prove that a mapping is right: run the old and the new model on the same random input.

Once with the weights as they are and once with random ones, in float64 if the models allow it.
A wrong mapping that keeps every shape (two norms swapped, a query taken for a key, a square matrix
not transposed) loads strictly; only this finds it. torch runs the user's own code here.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import fspath
from typing import TYPE_CHECKING

from ckpt.definitions import Definition, DefinitionError, find_definition, load_strictly
from ckpt.errors import PlanError, UsageError
from ckpt.opened import Named
from ckpt.ops.load import load
from ckpt.refs import DefinitionRef, parse_ref
from ckpt.registry.registry import Registry
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
    sources_of,
)
from ckpt.rules.plan import Plan
from ckpt.writing.whole import averaged, resized

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

State = Mapping[str, "Tensor"]
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}  # as a part of the largest output
_BATCH = 2


@dataclass(frozen=True, slots=True)
class Proof:
    """Both models gave the same outputs, both times.

    Attributes:
        shape: The shape of the input.
        dtype: The dtype in which they ran.
        largest: The largest difference of two outputs, as a part of the largest output, with the
            weights as they are and with random ones.
    """

    shape: tuple[int, ...]
    dtype: str
    largest: tuple[float, float]


def prove(
    plan: Plan,
    source: Named,
    old: str,
    new: Named | None,
    arguments: Mapping[str, object] | None,
    shape: Sequence[int] | None,
    registry: Registry,
) -> Proof:
    """Run both models on one random input; torch's global generator stays as it was.

    Args:
        plan: What becomes of every tensor of `source`.
        source: A file or a version.
        old: The definition that it fits.
        new: The definition that the result fits.
        arguments: The arguments of both definitions.
        shape: The shape of the input; None derives it from the first layer.
        registry: Where versions are looked up.

    Raises:
        PlanError: The outputs differ; the message names the first module where they do.
        FitError: A state_dict does not fit its definition.
        DefinitionError: A model fails on the input.
        UsageError: `new` is not a definition, or the shape cannot be derived.
    """
    if new is None or not isinstance(parse_ref(fspath(new)), DefinitionRef):
        raise UsageError("a proof runs two definitions", hint="--from OLD_DEF --to NEW_DEF --prove")
    definitions = find_definition(old, arguments), find_definition(fspath(new), arguments)
    used = {key for tensor in plan.tensors for key in sources_of(tensor.made_of)}
    used |= {dropped.key for dropped in plan.dropped}
    stored = {key: it for key, it in load(source, registry=registry).items() if key in used}
    return _proof(plan, stored, *definitions, shape)


def _proof(
    plan: Plan, state: State, old: Definition, new: Definition, shape: Sequence[int] | None
) -> Proof:
    import torch

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        models = old.build().eval(), new.build().eval()
        data = _input(models[0], shape)
        states = state, _random(state)
        failure: RuntimeError | None = None
        for dtype in (torch.float64, torch.float32):  # some models run in float32 only
            try:
                first, second = (
                    _difference(plan, tensors, old, new, models, data, dtype) for tensors in states
                )
            except RuntimeError as error:
                failure = error
            else:
                name = str(dtype).removeprefix("torch.")
                return Proof(tuple(data.shape), name, (first, second))
    raise DefinitionError(
        f"{old.ref} does not run on {' '.join(map(str, data.shape))}: "
        + " ".join(str(failure).split()),
        hint="--input 1x3x224x224  sets the shape of the input",
    ) from failure


def evaluated(made: Expression, state: State) -> "Tensor":
    """The value of an expression over a state_dict."""
    import torch

    match made:
        case Source(key=key):
            return state[key]
        case Permuted(of=inner, dims=dims):
            return evaluated(inner, state).permute(dims)
        case Reshaped(of=inner, shape=shape):
            return evaluated(inner, state).reshape(shape)
        case Narrowed(of=inner, dim=dim, start=start, length=length):
            return evaluated(inner, state).narrow(dim, start, length)
        case Joined(parts=parts, dim=dim):
            return torch.cat([evaluated(part, state) for part in parts], dim)
        case Cast(of=inner, dtype=dtype):
            return evaluated(inner, state).to(getattr(torch, dtype))
        case Copied(of=inner):
            return evaluated(inner, state).clone()
        case Merged(of=inner):
            return evaluated(inner, state)
        case Averaged(of=inner):
            return averaged(evaluated(inner, state), made)
        case Resized(of=inner):
            return resized(evaluated(inner, state), made)
        case Filled(dtype=dtype, shape=shape, value=value):
            return torch.full(shape, value, dtype=getattr(torch, dtype))


def _difference(
    plan: Plan,
    state: State,
    old: Definition,
    new: Definition,
    models: "tuple[nn.Module, nn.Module]",
    data: "Tensor",
    dtype: "torch.dtype",
) -> float:
    """The largest difference of the outputs, as a part of the largest output."""
    made = {tensor.key: evaluated(tensor.made_of, state) for tensor in plan.tensors}
    seen: list[dict[str, Tensor]] = []
    results = []
    for model, definition, tensors in zip(models, (old, new), (state, made), strict=True):
        model.to(dtype)
        load_strictly(model, tensors, f"{definition.ref} does not fit this state_dict")
        outputs: dict[str, Tensor] = {}
        handles = _watched(model, outputs)
        batch = data.to(dtype) if data.is_floating_point() else data
        results.append([*_tensors(definition.run(model, batch))])
        for handle in handles:
            handle.remove()
        seen.append(outputs)
    tolerance = TOLERANCE[str(dtype).removeprefix("torch.")]
    apart = [_apart(a, b) for a, b in zip(*results, strict=False)]
    worst = max(apart, default=math.inf)
    if worst > tolerance or len(results[0]) != len(results[1]):
        where = _parting(plan, seen, tolerance)
        raise PlanError(
            f"{old.ref} and {new.ref} give different outputs, by {worst:.2g} of the largest{where}",
            hint="the mapping is wrong there, or the models compute different things",
        )
    return worst


def _parting(plan: Plan, seen: "Sequence[Mapping[str, Tensor]]", tolerance: float) -> str:
    """The first module, in the order of the old model's run, whose counterpart differs."""
    twins = {
        old.rpartition(".")[0]: tensor.key.rpartition(".")[0]
        for tensor in plan.tensors
        for old in sources_of(tensor.made_of)
    }
    for module, output in seen[0].items():
        other = seen[1].get(twins.get(module, ""))
        if other is not None and _apart(output, other) > tolerance:
            return (
                f"; they first differ at {module or 'the root'} and {twins[module] or 'the root'}"
            )
    return ""


def _apart(a: "Tensor", b: "Tensor") -> float:
    if a.shape != b.shape:
        return math.inf
    if not a.numel():
        return 0.0
    largest = max(float(a.abs().max()), float(b.abs().max()), 1e-300)
    apart = float((a.double() - b.double()).abs().max()) / largest
    return math.inf if math.isnan(apart) else apart


def _watched(
    model: "nn.Module", outputs: "dict[str, Tensor]"
) -> "list[torch.utils.hooks.RemovableHandle]":
    """Hooks that record the first output of every module with parameters of its own."""

    def note(name: str, result: object) -> None:
        first = next(_tensors(result), None)
        if first is not None:
            outputs.setdefault(name, first.detach().clone())

    return [
        module.register_forward_hook(lambda _module, _given, result, name=name: note(name, result))
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]


def _tensors(result: object) -> "Iterator[Tensor]":
    """The floating-point tensors of an output, in whatever containers."""
    import torch

    if isinstance(result, torch.Tensor):
        if result.is_floating_point():
            yield result
    elif isinstance(result, Mapping):
        for value in result.values():
            yield from _tensors(value)
    elif isinstance(result, list | tuple):
        for value in result:
            yield from _tensors(value)


def _random(state: State) -> State:
    """Random tensors of the same shapes; variances stay above zero."""
    import torch

    def drawn(key: str, value: "Tensor") -> "Tensor":
        if not value.is_floating_point():
            return value
        scale = math.sqrt(max(value.shape[-1], 1)) if value.ndim else 1.0
        noise = torch.randn(value.shape, dtype=torch.float64) / scale
        return noise.abs() + 0.5 if key.endswith("running_var") else noise

    return {key: drawn(key, value) for key, value in state.items()}


def _input(model: "nn.Module", shape: Sequence[int] | None) -> "Tensor":
    """Random input for the first layer: numbers, or indices for an embedding."""
    import torch
    from torch import nn

    layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.Embedding)
    first = next((module for module in model.modules() if isinstance(module, layers)), None)
    if isinstance(first, nn.Embedding):
        return torch.randint(0, first.num_embeddings, tuple(shape or (_BATCH, 8)))
    if shape is not None:
        return torch.randn(tuple(shape), dtype=torch.float64)
    if isinstance(first, nn.Linear):
        return torch.randn(_BATCH, first.in_features, dtype=torch.float64)
    if isinstance(first, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        side = 28 if first.in_channels == 1 else 64
        sides = [side] * len(first.kernel_size)
        return torch.randn(_BATCH, first.in_channels, *sides, dtype=torch.float64)
    raise UsageError(
        "the first layer does not determine the shape of the input", hint="--input 1x3x224x224"
    )

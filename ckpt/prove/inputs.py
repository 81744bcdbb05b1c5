"""The input of a proof: as it was given, or drawn as far as the old model tells what it takes.

In this order: tensors, specifications, the `dummy_inputs` of a Hugging Face model, and what the
signature of `forward` and the first layers tell.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ckpt.errors import UsageError
from ckpt.prove.arguments import Inputs, places_of
from ckpt.prove.result import InputTensor
from ckpt.prove.specs import InputSpec, parse_input

if TYPE_CHECKING:
    from torch import Tensor, nn

    Given = (
        Sequence[int] | str | InputSpec | Sequence[str | InputSpec] | Tensor | Sequence[Tensor]
        | Mapping[str, Tensor] | None
    )  # fmt: skip

HINT = "--input 1x3x224x224  sets the shape of the input, --input NAME=SHAPE  that of one argument"
_BATCH, _LENGTH = 2, 8
_SIDES = {1: (28, 32, 64, 224), 3: (64, 32, 224, 384)}
_ANY_SIDES = (64, 32, 16, 8)
_ONES = ("mask",)
_INTEGERS = ("ids", "token", "idx", "index", "indices", "labels")
_IMAGES = ("pixel", "image", "img")
_TRIES = 12


def described(inputs: Inputs) -> tuple[InputTensor, ...]:
    """Names, dtypes and shapes."""
    named = [*((None, it) for it in inputs.places), *inputs.names.items()]
    return tuple(
        InputTensor(name, str(it.dtype).removeprefix("torch."), tuple(it.shape))
        for name, it in named
    )


def inputs_for(model: "nn.Module", given: "Given") -> Iterator[Inputs]:
    """What to try, best first, at most `_TRIES`; each draws from torch's global generator.

    Args:
        model: The old model.
        given: A shape; specifications, or their texts; tensors by place or by name; None to
            derive them.

    Raises:
        UsageError: Nothing tells what the model takes.
    """
    if given is None:
        yield from _derived(model)
        return
    ready = _ready(given)
    yield _drawn(model, specs_of(given)) if ready is None else ready


def _ready(given: "Given") -> Inputs | None:
    """The tensors that were given, if they are tensors."""
    import torch

    if isinstance(given, torch.Tensor):
        return Inputs((given,))
    if isinstance(given, str) or not isinstance(given, Sequence | Mapping):
        return None
    if isinstance(given, Mapping):
        named = {name: it for name, it in given.items() if isinstance(it, torch.Tensor)}
        return Inputs((), named) if named and len(named) == len(given) else None
    placed = tuple(it for it in given if isinstance(it, torch.Tensor))
    return Inputs(placed) if placed and len(placed) == len(given) else None


def specs_of(given: "Given") -> list[InputSpec]:
    """The specifications that were given.

    Raises:
        UsageError: It is something else, or an argument is given twice.
    """
    if isinstance(given, str | InputSpec):
        given = [given]
    listed = list(given) if isinstance(given, Sequence) else []
    sizes = tuple(size for size in listed if isinstance(size, int))
    if sizes and len(sizes) == len(listed):
        return [InputSpec(sizes)]
    texts = [parse_input(it) if isinstance(it, str) else it for it in listed]
    specs = [it for it in texts if isinstance(it, InputSpec)]
    if not specs or len(specs) < len(listed):
        raise UsageError("the input of a proof is a shape, texts like 1x3x224x224, or tensors")
    names = [spec.name for spec in specs if spec.name]
    if len(set(names)) < len(names):
        raise UsageError(f"the input {names[0]} is given twice")
    return specs


def _drawn(model: "nn.Module", specs: Sequence[InputSpec]) -> Inputs:
    """Random tensors as specified."""
    places = iter([*places_of(model), *("" for _ in specs)])
    names = [spec.name or next(places) for spec in specs]
    layers = _layers(model, names)
    drawn = [_tensor(model, *each) for each in zip(names, layers, specs, strict=True)]
    return Inputs(
        tuple(it for it, spec in zip(drawn, specs, strict=True) if spec.name is None),
        {spec.name: it for it, spec in zip(drawn, specs, strict=True) if spec.name},
    )


def _tensor(model: "nn.Module", name: str, layer: "nn.Module | None", spec: InputSpec) -> "Tensor":
    """A random tensor; a dtype that was left out is the one that the layer takes."""
    import torch
    from torch import nn

    indices = isinstance(layer, nn.Embedding)
    numbers = torch.float64 if not indices and not _is(name, _INTEGERS) else torch.int64
    dtype = getattr(torch, spec.dtype) if spec.dtype else numbers
    if dtype == torch.bool:
        return torch.rand(spec.shape) < 0.5
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(spec.shape, dtype=torch.float64).to(dtype)
    most = layer.num_embeddings if isinstance(layer, nn.Embedding) else _range(model, name)
    return torch.randint(0, spec.below or most, spec.shape).to(dtype)


def _derived(model: "nn.Module") -> Iterator[Inputs]:
    """Candidates of inputs that nobody specified."""
    dummy = _dummy(model)
    if dummy is not None:
        yield dummy
    names = _required(model)
    layers = _layers(model, names)
    shapes = [list(_shapes(model, name, layer)) for name, layer in zip(names, layers, strict=True)]
    if not names or any(not options for options in shapes):
        if dummy is None:
            raise UsageError("the first layer does not determine the shape of the input", hint=HINT)
        return
    for number in range(min(max(map(len, shapes)), _TRIES)):
        chosen = [options[min(number, len(options) - 1)] for options in shapes]
        yield Inputs(
            tuple(
                _of_shape(model, name, layer, shape)
                for name, layer, shape in zip(names, layers, chosen, strict=True)
            )
        )


def _dummy(model: "nn.Module") -> Inputs | None:
    """The `dummy_inputs` of a Hugging Face model that holds its main input."""
    import torch

    found, main = getattr(model, "dummy_inputs", None), getattr(model, "main_input_name", None)
    if not isinstance(found, Mapping) or (main is not None and main not in found):
        return None
    named = {str(name): it for name, it in found.items() if isinstance(it, torch.Tensor)}
    most = _range(model, "input_ids")
    return Inputs(
        (), {k: it if it.is_floating_point() else it.remainder(most) for k, it in named.items()}
    )


def _required(model: "nn.Module") -> list[str]:
    """The arguments of `forward` without a default; the first one if all have one."""
    return places_of(model, needed=True) or places_of(model)[:1] or ["input"]


def _is(name: str, words: Sequence[str]) -> bool:
    return any(word in name.lower() for word in words)


def _layers_for(model: "nn.Module", name: str) -> "Iterator[nn.Module]":
    """The layers that may take an argument, of the kind that its name tells first."""
    from torch import nn

    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    others = (nn.Linear, nn.Embedding, nn.RNNBase, nn.LayerNorm, nn.MultiheadAttention)
    kinds = (*convolutions, *others)
    layers = [module for module in model.modules() if isinstance(module, kinds)]
    if _is(name, _INTEGERS):
        yield from (layer for layer in layers if isinstance(layer, nn.Embedding))
    elif _is(name, _IMAGES):
        yield from (layer for layer in layers if isinstance(layer, convolutions))
    yield from layers


def _layers(model: "nn.Module", names: Sequence[str]) -> "list[nn.Module | None]":
    """A layer for each argument: of its kind, or of several the first one of the next child."""
    layers = [next(_layers_for(model, name), None) for name in names]
    if len(names) < 2:
        return layers
    children = [next(_layers_for(child, ""), None) for child in model.children()]
    taken: list[nn.Module | None] = []
    for name, layer in zip(names, layers, strict=True):
        used = {id(it) for it in taken}
        told = _is(name, (*_INTEGERS, *_IMAGES, *_ONES)) and id(layer) not in used
        free = (it for it in children if it is not None and id(it) not in used)
        taken.append(layer if told else next(free, layer))
    return taken


def _shapes(model: "nn.Module", name: str, layer: "nn.Module | None") -> Iterator[tuple[int, ...]]:
    """Shapes of an argument that a layer may take, likeliest first."""
    from torch import nn

    if _is(name, _ONES) or isinstance(layer, nn.Embedding):
        yield (_BATCH, _LENGTH)
        yield (_BATCH,)
    elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        dims, channels = len(layer.kernel_size), layer.in_channels
        for side in (*_named_sides(model), *_SIDES.get(channels, _ANY_SIDES)):
            yield (_BATCH, channels, *[side] * dims)
    else:
        for width in _widths(model, layer):
            yield (_BATCH, *width)
            yield (_BATCH, _LENGTH, *width)
            yield (_BATCH, _LENGTH, _LENGTH, *width)


def _widths(model: "nn.Module", layer: "nn.Module | None") -> Iterator[tuple[int, ...]]:
    """The last sizes of what a layer takes; without one, those of the first matrix."""
    from torch import nn

    if isinstance(layer, nn.LayerNorm):
        yield tuple(layer.normalized_shape)
    for name in ("in_features", "input_size", "embed_dim"):
        if hasattr(layer, name):
            yield (int(getattr(layer, name)),)
    if layer is None:
        matrix = next((it for it in model.parameters() if it.ndim == 2), None)
        yield from ((size,) for size in dict.fromkeys(matrix.shape if matrix is not None else ()))


def _named_sides(model: "nn.Module") -> Iterator[int]:
    """The size of an image that the model itself names, as Hugging Face and timm do."""
    config = getattr(model, "config", None)
    for size in (getattr(config, "image_size", None), getattr(model, "image_size", None)):
        if isinstance(size, int):
            yield size
        elif isinstance(size, tuple | list) and size and isinstance(size[0], int):
            yield size[0]
    for options in (getattr(model, "pretrained_cfg", None), getattr(model, "default_cfg", None)):
        size = options.get("input_size") if isinstance(options, Mapping) else None
        if isinstance(size, tuple | list) and size:
            yield int(size[-1])


def _of_shape(
    model: "nn.Module", name: str, layer: "nn.Module | None", shape: tuple[int, ...]
) -> "Tensor":
    import torch
    from torch import nn

    if _is(name, _ONES):
        return torch.ones(shape, dtype=torch.int64)
    if isinstance(layer, nn.Embedding):
        return torch.randint(0, layer.num_embeddings, shape)
    return torch.randn(shape, dtype=torch.float64)


def _range(model: "nn.Module", name: str) -> int:
    """How many values an integer argument has: the rows of an embedding; else two."""
    from torch import nn

    rows = [it.num_embeddings for it in model.modules() if isinstance(it, nn.Embedding)]
    if not rows:
        return 2
    return min(rows) if "type" in name.lower() else rows[0]

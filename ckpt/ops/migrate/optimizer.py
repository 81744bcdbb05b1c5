"""Load the state of an optimizer that was saved for an earlier form of a model's class.

torch matches state by the place of a parameter, and knows nothing of migrations. Law: state and
options go to the parameters that hold the elements which they belong to, or it is an error.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from ckpt.definitions import Parameter
from ckpt.errors import FitError, PlanError, UsageError
from ckpt.formats.optimizers import MOMENTS, Fields, HeldOptimizer, OptimizerState, held_optimizers
from ckpt.formats.pickle.nodes import DictNode
from ckpt.migrate.hook import planned_into
from ckpt.ops.rename.training.owners import expect_order, parameters_among
from ckpt.ops.rename.training.regrouped import Owned, Regrouping, named, numbered
from ckpt.rules.expressions import Expression, sources_of
from ckpt.rules.plan import Dropped, Plan
from ckpt.rules.prefixes import unwrapped
from ckpt.tensors import StateDict, TensorEntry
from ckpt.writing.evaluated import evaluated
from ckpt.writing.moments import expect_shapes, state_after

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

_NAME = "optimizer"
_FLAT = ("state.", "param_groups.")


def load_optimizer(
    optimizer: "Optimizer",
    state: Mapping[str, Any],
    model: "nn.Module",
    *,
    weights: "Mapping[str, Tensor] | None" = None,
) -> None:
    """Load an optimizer's state that was saved for an earlier form of a model's class.

    The migrations of the class, or of classes within the model, tell what became of the
    parameters. State that numbers them (torch) or names them (FSDP, torch.distributed.checkpoint)
    is understood. A parameter that was split or joined gets its moments split or joined alike.

    Args:
        optimizer: It trains parameters of `model`.
        state: A training checkpoint as it was saved, with the weights and one optimizer in it; or
            the optimizer's state alone.
        model: The model as it is now.
        weights: The state_dict that was saved with the state, if that is given alone.

    Raises:
        UsageError: It is not known which weights or which state is meant.
        FitError: No migrations lead from the weights to the model, or the optimizer does not train
            the same parameters.
        PlanError: The state of a parameter cannot follow; the message names it.

    Example:
        >>> run = torch.load("run.pt")
        >>> model.load_state_dict(run["model"])
        >>> ckpt.load_optimizer(optimizer, run, model)
    """
    state, weights = _found(state, weights, model)
    planned = tuple(planned_into(model, weights, name="the state_dict"))
    made = {tensor.key: tensor.made_of for tensor in planned}
    used = {old for made_of in made.values() for old in sources_of(made_of)}
    gone = tuple(Dropped(key, 0) for key in weights if key not in used)
    trained = {id(it) for group in optimizer.param_groups for it in group["params"]}
    new = _parameters(model, trained)
    values = _InMemory()
    try:
        plan = Plan((), planned, gone)
        held, owners, prefix = _owned(state, weights, plan, new)
        after = Regrouping(held, owners, plan, new, values).done(prefix)
        fields = state_after(held, after, made, values)
    except ValueError as error:
        raise PlanError(f"the optimizer's state cannot follow: {error}") from error
    options = {key: held.options[at] for at, keys in enumerate(after.groups) for key in keys}
    optimizer.load_state_dict(_state_dict(optimizer, model, options, fields, values))


def _found(
    state: Mapping[str, Any], weights: "Mapping[str, Tensor] | None", model: "nn.Module"
) -> "tuple[Mapping[str, Any], Mapping[str, Tensor]]":
    """The state of the optimizer and the weights that were saved with it."""
    optimizers = [(path, it) for path, it in _mappings(state) if _is_optimizer(it)]
    if len(optimizers) != 1:
        paths = ", ".join(path for path, _ in optimizers) or "none"
        raise UsageError(
            f"the state of one optimizer is expected; found {len(optimizers)}: {paths}",
            hint='load_optimizer(optimizer, run["optimizer"], model, weights=run["model"])',
        )
    (_, found), *_ = optimizers
    if weights is not None:
        return found, weights
    if found is state:
        raise UsageError(
            "the state of an optimizer does not tell which form of the class it was saved for",
            hint='weights=run["model"]  passes the state_dict that was saved with it',
        )
    return found, _weights(state, model)


def _mappings(value: object, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All mappings of a checkpoint, but for those inside of an optimizer."""
    if isinstance(value, Mapping):
        yield path, value
        inner = [] if _is_optimizer(value) else list(value.items())
    else:
        inner = list(enumerate(value)) if isinstance(value, list | tuple) else []
    for key, part in inner:
        yield from _mappings(part, f"{path}.{key}" if path else str(key))


def _is_optimizer(value: Mapping[str, Any]) -> bool:
    is_flat = bool(value) and all(str(key).startswith(_FLAT) for key in value)
    return is_flat or {"state", "param_groups"} <= value.keys()


def _weights(state: Mapping[str, Any], model: "nn.Module") -> "Mapping[str, Tensor]":
    """The state_dict of a training checkpoint that leads to a model; copies of it are as good."""
    import torch

    found: list[Mapping[str, Tensor]] = []
    why: FitError | None = None
    for path, part in _mappings(state):
        if not _is_optimizer(part) and any(isinstance(it, torch.Tensor) for it in part.values()):
            try:
                planned_into(model, part, name=path)
                found.append(part)
            except FitError as error:
                why = why or error
    if why is not None and not found:
        raise why
    if len({tuple((unwrapped(it.key), it.shape) for it in _entries(part)) for part in found}) != 1:
        raise UsageError(
            f"the checkpoint has {len(found)} state_dicts that may be those of the model",
            hint='weights=run["model"]  says which was saved with the optimizer',
        )
    return min(found, key=lambda part: sum(map(len, part)))  # without a wrapper's prefix


def _owned(
    state: Mapping[str, Any],
    weights: "Mapping[str, Tensor]",
    plan: Plan,
    new: Sequence[Parameter],
) -> Owned:
    """The optimizer, and which of its parameters belongs to which key of the weights.

    Raises:
        ValueError: That is not known.
    """
    node = _node(state)
    is_flat = "param_groups" not in state
    found = held_optimizers(*(((), {_NAME: node}) if is_flat else ([(_NAME, node)], {})))
    if not found:
        raise ValueError("it has an unknown form")
    if not found[0].is_numbered:
        if not (owned := list(named(weights.keys(), found))):
            raise ValueError("the names of its parameters are not keys of the weights")
        return owned[0]
    entries = _entries(weights)
    versions = getattr(weights, "_metadata", None)
    expect_order(StateDict(entries, versions=versions))
    known = parameters_among(entries, plan, new)
    return next(numbered([_with_shapes(found[0])], known, found, alone=True))


def _node(state: Mapping[str, Any]) -> DictNode:
    """A state as `held_optimizers` reads it: mappings are nodes, and values stay as they are."""
    items = dict(state)
    if "param_groups" in items:
        of = items["state"].items()
        items["state"] = DictNode([(key, DictNode(list(it.items()))) for key, it in of])
        items["param_groups"] = [DictNode(list(it.items())) for it in items["param_groups"]]
    return DictNode(list(items.items()))


def _with_shapes(held: HeldOptimizer) -> OptimizerState:
    """The optimizer with the shapes of its parameters, as far as their state tells."""
    shapes = {}
    for number, fields in held.state.items():
        sizes = {tuple(it.shape) for key, it in fields.items()
                 if key in MOMENTS and hasattr(it, "shape")}  # fmt: skip
        if len(sizes) == 1 and isinstance(number, int):
            shapes[number] = sizes.pop()
    groups = [[it for it in group if isinstance(it, int)] for group in held.groups]
    names = tuple(list[object](each) for each in held.names)
    return OptimizerState((_NAME,), groups, names, shapes, held.is_joint)


def _entries(weights: "Mapping[str, Tensor]") -> list[TensorEntry]:
    """The tensors; those that share memory have the same offset."""
    import torch

    found = []
    for at, (key, it) in enumerate(weights.items()):
        if isinstance(it, torch.Tensor):
            dtype, offset = str(it.dtype).removeprefix("torch."), it.data_ptr() or -1 - at
            found.append(TensorEntry(key, dtype, tuple(it.shape), offset))
    return found


def _parameters(model: "nn.Module", trained: set[int]) -> list[Parameter]:
    places: dict[int, int] = {}
    return [
        Parameter(key, places.setdefault(id(it), len(places)), id(it) in trained)
        for key, it in model.named_parameters(remove_duplicate=False)
    ]


def _state_dict(
    optimizer: "Optimizer",
    model: "nn.Module",
    options: Mapping[str, Fields],
    fields: Mapping[str, Fields],
    values: "_InMemory",
) -> dict[str, Any]:
    """The state as torch loads it: by the places of the parameters in the optimizer.

    Raises:
        FitError: The optimizer trains other parameters, or has them in other groups.
    """
    keys = {id(parameter): key for key, parameter in model.named_parameters()}
    numbers, left = count(), dict(options)
    state: dict[int, Any] = {}
    groups = []
    for group in optimizer.param_groups:
        params, own = [], dict[str, Fields]()
        for parameter in group["params"]:
            params.append(number := next(numbers))
            key = keys.get(id(parameter))
            if key is None or key not in left:
                raise FitError(f"the saved state has nothing for {key or f'parameter {number}'}")
            own[key] = left.pop(key)
            if key in fields:
                state[number] = {n: _placed(it, parameter) for n, it in fields[key].items()}
        groups.append({**(_common(own, values) if own else group), "params": params})
    if left:
        raise FitError(
            f"the saved state has {next(iter(left))}, which the optimizer does not train"
        )
    return {"state": state, "param_groups": groups}


def _common(options: Mapping[str, Fields], values: "_InMemory") -> Fields:
    """The options of the parameters of one group."""
    (first, own), *others = options.items()
    for key, other in others:
        if not values.same(own, other):
            raise FitError(f"{first} and {key} are in groups with other options in the saved state")
    return own


def _placed(value: Any, parameter: Any) -> Any:
    """A tensor of the shape of a parameter that is sharded, sharded alike."""
    import torch

    mesh = getattr(parameter, "device_mesh", None)  # only a DTensor has it, and placements
    whole = isinstance(value, torch.Tensor) and not hasattr(value, "device_mesh")
    if mesh is None or not whole or value.shape != parameter.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    moved = value.to(mesh.device_type)
    return distribute_tensor(moved, mesh, parameter.placements, src_data_rank=None)


class _InMemory:
    """The `Values` of an optimizer in memory."""

    def shape(self, value: Any) -> tuple[int, ...] | None:
        import torch

        return tuple(value.shape) if isinstance(value, torch.Tensor) else None

    def place(self, value: Any) -> int | None:
        import torch

        return value.data_ptr() or None if isinstance(value, torch.Tensor) else None

    def value(self, value: Any) -> object:
        import torch

        if not isinstance(value, torch.Tensor):
            return value
        elements = value.detach().cpu().contiguous().reshape(-1)
        return value.dtype, tuple(value.shape), elements.view(torch.uint8).numpy().tobytes()

    def same(self, one: Fields, other: Fields) -> bool:
        """Whether options are equal, but for the names of their groups."""
        mine, theirs = (
            {name: self.value(it) for name, it in options.items() if name != "name"}
            for options in (one, other)
        )
        return mine == theirs

    def made(self, made_of: Expression, tensors: "Mapping[str, Tensor]") -> "Tensor":
        import torch

        expect_shapes(made_of, {key: tuple(it.shape) for key, it in tensors.items()})
        dtypes = sorted({str(it.dtype) for it in tensors.values()})
        if len(dtypes) > 1:
            raise PlanError(f"has the dtypes {' and '.join(dtypes)}")
        return evaluated(made_of, tensors).clone(memory_format=torch.contiguous_format)

    def copied(self, tensor: "Tensor") -> "Tensor":
        return tensor.clone()

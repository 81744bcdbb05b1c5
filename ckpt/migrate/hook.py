"""Loading through migrations: torch's own hook turns an old state_dict into one that fits.

torch is the caller's: this module runs only where a module of theirs is loaded.
"""

import functools
import inspect
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ckpt.errors import CkptError, FitError, UsageError
from ckpt.migrate.chain import begin
from ckpt.migrate.folder import Place, place_of
from ckpt.migrate.graph import Graph
from ckpt.migrate.schema import NUMBER, Schema, number_in, root_number
from ckpt.migrate.way import Way
from ckpt.rules.derived.other_tensors import with_sources
from ckpt.rules.planned import Planned
from ckpt.tensors import NOT_A_TENSOR, TensorEntry, with_versions
from ckpt.writing.evaluated import evaluated

if TYPE_CHECKING:
    from torch import nn

Model = TypeVar("Model")
_ABSENT = object()
_FOLDER = "_ckpt_migrations"  # of a decorated class or module: the folder that it names, or None
_TO_THE_CALLER = 6  # frames from torch's hook to the call of `load_state_dict`


class MigratedWarning(UserWarning):
    """A state_dict was migrated while it was loaded."""


def migrating(model: Model, *, folder: Path | str | None = None) -> Model:
    """Let `load_state_dict` accept every state_dict that a class's migrations know.

    A state_dict that fits is loaded as it is, and one that no migration knows is refused by torch
    as ever. Works where the class is a part of a larger model, too. The state_dicts that it makes
    say which `ckpt_schema` the class has.

    Args:
        model: A class, which this decorates, or one module.
        folder: Where its migrations are; by default `migrations` beside the class's file, or the
            folder that ``[tool.ckpt]`` in pyproject.toml names.

    Returns:
        `model` itself.

    Example:
        >>> @ckpt.migrating
        ... class Net(nn.Module): ...
        >>> Net().load_state_dict(torch.load("old.pt"))
    """
    from torch import nn

    where = None if folder is None else Path(folder)
    if isinstance(model, type) and issubclass(model, nn.Module):
        _decorate(model, where)
    elif isinstance(model, nn.Module):
        if where is not None or not _homes(model):
            setattr(model, _FOLDER, where)
        _register(model)
    else:
        raise UsageError(f"{type(model).__name__} is not a torch.nn.Module or a class of them")
    return model


def _decorate(owner: "type[nn.Module]", folder: Path | None) -> None:
    init = owner.__init__

    @functools.wraps(init)
    def made(self: "nn.Module", *arguments: Any, **named: Any) -> None:
        init(self, *arguments, **named)
        _register(self)

    setattr(owner, _FOLDER, folder)
    owner.__init__ = made  # type: ignore[method-assign] # what a class decorator is for


def _register(module: "nn.Module") -> None:
    hooks = (getattr(it, "hook", it) for it in module._load_state_dict_pre_hooks.values())
    if _before_loading in hooks:  # a class and its base may both be decorated
        return
    typed: Any = module  # torch's hooks have no types
    if hasattr(module, "register_load_state_dict_pre_hook"):
        typed.register_load_state_dict_pre_hook(_before_loading)
        typed.register_state_dict_post_hook(_note_number)
    else:  # torch 2.4 has both, under private names
        typed._register_load_state_dict_pre_hook(_before_loading, with_module=True)
        typed._register_state_dict_hook(_note_number)


def _homes(module: "nn.Module") -> "list[tuple[type[nn.Module], Path | None]]":
    """The decorated classes of a module and the folders that they name, its own class first."""
    own = [(type(module), vars(module)[_FOLDER])] if _FOLDER in vars(module) else []
    return own + [(it, vars(it)[_FOLDER]) for it in type(module).__mro__ if _FOLDER in vars(it)]


def _note_number(
    module: "nn.Module", _state: object, _prefix: str, metadata: dict[str, Any]
) -> None:
    """Write the `ckpt_schema` of a class into the metadata that torch keeps for its module."""
    number = getattr(module, NUMBER, None)
    if type(number) is int:
        metadata[NUMBER] = number


def _before_loading(
    module: "nn.Module",
    state: dict[str, Any],
    prefix: str,
    metadata: Mapping[str, Any],
    _strict: bool,
    _missing: list[str],
    _unexpected: list[str],
    errors: list[str],
) -> None:
    """Replace an old state_dict by one that fits, if migrations lead to it; torch calls this."""
    wanted = _wanted(module, state, prefix, number_in({"": metadata}))
    if wanted is None:
        return
    mine = {key[len(prefix) :]: it for key, it in state.items() if key.startswith(prefix)}
    try:
        way = _way(module, _schema(mine, number_in({"": metadata})), wanted)
    except CkptError as error:
        errors.append(f"{error}" + (f" ({error.hint})" if error.hint else ""))
        return
    if way is None and NUMBER in metadata and _fits(state, prefix, wanted.shapes):
        expected = wanted.number or "none"
        errors.append(f"{NUMBER} is {metadata[NUMBER]}, expected {expected}; no way leads there")
    if way is None or not (way.steps or way.unwraps):
        return
    for key in mine:
        del state[prefix + key]
    state.update({prefix + key: it for key, it in applied(way, mine).items()})
    if way.steps:
        text = f"{type(module).__name__}: an old state_dict was migrated by {way.names}"
        warnings.warn(text, MigratedWarning, stacklevel=_TO_THE_CALLER)


def _way(module: "nn.Module", mine: Schema, wanted: Schema) -> Way | None:
    """The way by the migrations of a module's class, or of a decorated base of it."""
    ways = (graph.way(mine, wanted) for graph in _graphs(module))
    return next((way for way in ways if way is not None), None)


def _graphs(module: "nn.Module") -> list[Graph]:
    homes = _homes(module)
    if not homes and _file_of(type(module)) is None:
        return [Graph(())]  # a class that was typed into a notebook
    return [graph_of(owner, folder) for owner, folder in homes or [(type(module), None)]]


def fitted(
    state: "OrderedDict[str, Any]", to: "nn.Module | type[nn.Module]", *, name: str
) -> "OrderedDict[str, Any]":
    """A state_dict that fits a class or a module, by the migrations of the class.

    Args:
        state: As loaded, with its `_metadata` where that is known.
        to: What it should fit; a class is built without arguments, on the meta device.
        name: Its name in messages.

    Raises:
        FitError: It does not fit, and no migrations lead there.
    """
    to = _built(to)
    values = {it.key: evaluated(it.made_of, state) for it in planned_into(to, state, name=name)}
    order = [key for key, _ in _entries(to)]
    made = OrderedDict((key, values[key]) for key in order if key in values)
    if len(made) == len(order):  # torch adds counters that are missing if there are no versions
        with_versions(made, getattr(to.state_dict(), "_metadata", {}))
    return made


def planned_into(module: "nn.Module", state: Mapping[str, Any], *, name: str) -> Sequence[Planned]:
    """How each tensor of a module is made of a state_dict, by migrations of its class or its parts.

    Args:
        module: As what the state_dict is loaded.
        state: As loaded, with its `_metadata` where that is known.
        name: Its name in messages.

    Raises:
        FitError: It does not fit, and no migrations lead there.
    """
    wanted, owner = schema_of_module(module), type(module).__name__
    if wanted is None:
        raise FitError(f"{owner} has parameters without a shape", hint="run it once")
    versions = getattr(state, "_metadata", {})
    mine = _schema(state, root_number(versions))
    way = _way(module, mine, wanted)
    if way is not None:
        return way.planned
    planned = list(begin(mine).planned)
    for place, part in module.named_modules():
        if place and _homes(part):
            planned = _into_part(part, f"{place}.", planned, number_in(versions, place))
    made = Schema(tuple(TensorEntry(it.key, it.made_of.dtype, it.made_of.shape) for it in planned))
    if Graph(()).way(made, replace(wanted, number=None)) is None:
        refusal = _graphs(module)[0].refusal(mine, wanted, name=name, owner=owner)
        hint = f"ckpt migrate new FILE.py:{owner} --from OLD  makes the one that is missing"
        raise FitError(str(refusal), hint=refusal.hint or hint)
    return planned


def _into_part(
    part: "nn.Module", prefix: str, planned: Sequence[Planned], number: int | None
) -> list[Planned]:
    """The tensors of a larger module, after one part of it has its own."""
    mine = {it.key[len(prefix) :]: it.made_of for it in planned if it.key.startswith(prefix)}
    entries = (TensorEntry(key, made.dtype, made.shape) for key, made in mine.items())
    wanted = schema_of_module(part)
    way = _way(part, Schema(tuple(entries), number), wanted) if wanted else None
    if way is None:
        return list(planned)
    others = [it for it in planned if not it.key.startswith(prefix)]
    made = (with_sources(it.made_of, lambda source: mine[source.key]) for it in way.planned)
    return others + [Planned(prefix + it.key, of) for it, of in zip(way.planned, made, strict=True)]


def _built(to: object) -> "nn.Module":
    """A module, or one of a class, on the meta device.

    Raises:
        UsageError: It is neither, or the class needs arguments.
    """
    import torch

    if isinstance(to, torch.nn.Module):
        return to
    if not (isinstance(to, type) and issubclass(to, torch.nn.Module)):
        what = to.__name__ if isinstance(to, type) else type(to).__name__
        raise UsageError(f"to= is {what}, expected a torch.nn.Module or a class of them")
    try:
        with torch.device("meta"):
            return to()
    except TypeError as error:
        raise UsageError(
            f"{to.__name__} cannot be built without arguments: {error}",
            hint=f"pass a module:  to={to.__name__}(…)",
        ) from error


def _wanted(
    module: "nn.Module", state: Mapping[str, Any], prefix: str, number: int | None
) -> Schema | None:
    """What a module wants and a state_dict is not; None if that fits, or nobody knows yet."""
    from torch.nn.parameter import is_lazy

    found, own = dict(_entries(module)), _number_of(module)
    if any(map(is_lazy, found.values())):
        return None
    shapes = {key: getattr(tensor, "shape", ()) for key, tensor in found.items()}
    if own == number and _fits(state, prefix, shapes):
        return None
    return _schema(found, own)


def applied(way: Way, state: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a state_dict on its way; what keeps its elements keeps its memory."""
    return {tensor.key: evaluated(tensor.made_of, state) for tensor in way.planned}


def graph_of(owner: "type[nn.Module]", folder: Path | None) -> Graph:
    """The migrations of a class; their files are read again only if one changed."""
    place = place_of_class(owner, folder)
    return _read(place, place.stamp())


@functools.lru_cache(maxsize=64)
def _read(place: Place, _stamp: object) -> Graph:
    return place.graph()


def place_of_class(owner: type, folder: Path | None = None) -> Place:
    """Where the migrations of a class are.

    Raises:
        UsageError: Python does not know the file of the class, and no folder is named.
    """
    file = _file_of(owner)
    if file is None:
        raise UsageError(
            f"{owner.__name__}: Python does not know its file", hint="name folder= as well"
        )
    place = place_of(file, owner.__qualname__)
    return place if folder is None else place.moved(folder, file)


def _file_of(owner: type) -> Path | None:
    try:
        return Path(inspect.getfile(owner))
    except (TypeError, OSError):
        return None


def schema_of_module(module: "nn.Module") -> Schema | None:
    """The exact schema of a module's state_dict; None as long as a parameter has no shape.

    Its values are not touched, and no hook of its runs.
    """
    from torch.nn.parameter import is_lazy

    found = dict(_entries(module))
    if any(is_lazy(tensor) for tensor in found.values()):
        return None
    return _schema(found, _number_of(module))


def _number_of(module: "nn.Module") -> int | None:
    """The `ckpt_schema` of a module's class, or torch's `_version` if that is not 1."""
    number, version = getattr(module, NUMBER, None), getattr(module, "_version", 1)
    if type(number) is int:
        return number
    return version if version != 1 else None


def _entries(module: "nn.Module") -> Iterator[tuple[str, Any]]:
    """The keys of a module's state_dict, with its parameters and buffers."""
    for name, inner in module.named_modules(remove_duplicate=False):
        prefix = f"{name}." if name else ""
        for key, tensor in inner._parameters.items():
            if tensor is not None:
                yield prefix + key, tensor
        for key, tensor in inner._buffers.items():
            if tensor is not None and key not in inner._non_persistent_buffers_set:
                yield prefix + key, tensor
        if _has_extra_state(inner):
            yield f"{prefix}_extra_state", None


def _has_extra_state(module: "nn.Module") -> bool:
    from torch import nn

    return type(module).get_extra_state is not nn.Module.get_extra_state


def _schema(values: Mapping[str, Any], number: int | None) -> Schema:
    return Schema(tuple(_entry(key, value) for key, value in values.items()), number)


def _entry(key: str, value: Any) -> TensorEntry:
    shape = getattr(value, "shape", None)
    if shape is None:
        return TensorEntry(key, NOT_A_TENSOR, ())
    return TensorEntry(key, str(value.dtype).removeprefix("torch."), tuple(shape))


def _fits(state: Mapping[str, Any], prefix: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a state_dict has the keys and shapes of a module."""
    own = len(state) if not prefix else sum(key.startswith(prefix) for key in state)
    if own != len(shapes):
        return False
    for key, shape in shapes.items():
        value = state.get(prefix + key, _ABSENT)
        if value is _ABSENT or getattr(value, "shape", ()) != shape:
            return False
    return True

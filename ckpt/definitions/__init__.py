"""Definitions: the `nn.Module` classes that a state_dict must fit.

A ref is ``path/to/file.py:Class`` or ``package.module:Class``; a function that returns a
module also works (``torchvision.models:resnet18``). Finding one imports that file, which runs
its code and nothing else; its prints go to stderr, so that stdout has only the answer. torch is
imported inside the functions that need it.
"""

import contextlib
import inspect
import sys
import tokenize
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ckpt.definitions.importing import (
    DefinitionError,
    importable,
    imported,
    is_path,
    nearest,
    own_code,
    written_arguments,
)
from ckpt.errors import FitError, RefError, UsageError
from ckpt.tensors import StateDict, TensorEntry

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Parameter:
    """One name of a parameter.

    Attributes:
        key: In the state_dict.
        place: In the order of `Module.parameters`; tied names share one.
        trained: Whether it requires a gradient in a new module.
    """

    key: str
    place: int
    trained: bool


@dataclass(frozen=True, slots=True)
class Definition:
    """A class or function that returns a module, found and imported.

    Attributes:
        path: The file that defines it; None if Python knows of none.
        folder: The file's folder, whose modules it may import; None in a package.
    """

    ref: str
    path: Path | None
    folder: Path | None = field(repr=False)
    factory: Callable[[], object] = field(repr=False)
    _unused: "list[nn.Module]" = field(default_factory=list, repr=False, compare=False)

    def build(self) -> "nn.Module":
        """A new module with its initial weights; draws from torch's global generator."""
        from torch import nn

        with own_code(self.ref), importable(self.folder):
            module = self.factory()
        if not isinstance(module, nn.Module):
            raise DefinitionError(
                f"{self.ref}: returns {type(module).__name__}, expected torch.nn.Module"
            )
        return module

    def run(self, module: "nn.Module", *places: "Tensor", **names: "Tensor") -> object:
        """The output of a module that `build` made; a RuntimeError, which is torch's, passes."""
        with contextlib.redirect_stdout(sys.stderr), importable(self.folder):
            try:
                return module(*places, **names)
            except RuntimeError:
                raise
            except Exception as error:  # the model's code may raise anything
                text = " ".join(str(error).split())
                shapes = ", ".join(str(tuple(it.shape)) for it in (*places, *names.values()))
                raise DefinitionError(
                    f"{self.ref}: raises {type(error).__name__} on {shapes}: {text}",
                    hint="--input 1x3x224x224  sets the shape of the input",
                ) from error

    def on_meta(self) -> "nn.Module":
        """A new module on torch's meta device, so that its size costs nothing.

        If its constructor needs real values, on the CPU. The global generator is restored.
        """
        import torch

        with torch.random.fork_rng(devices=[]):
            try:
                with torch.device("meta"):
                    return self.build()
            except DefinitionError:
                return self.build()

    def unused(self) -> "nn.Module":
        """A module like that of `on_meta` to load into: the one that `state` looked at, once.

        A large model takes seconds to build, even without its values.
        """
        return self._unused.pop() if self._unused else self.on_meta()

    def state(self) -> StateDict:
        """Its state_dict, persistent buffers and extra state included, without values.

        Raises:
            DefinitionError: As `build`; or a key has no shape yet (a lazy module).
        """
        import torch

        module = self.on_meta()
        with own_code(self.ref):
            state = module.state_dict()
            tensors = {key: it for key, it in state.items() if isinstance(it, torch.Tensor)}
            entries = tuple(
                TensorEntry(key, str(value.dtype).removeprefix("torch."), tuple(value.shape))
                for key, value in tensors.items()
            )
        others = tuple(key for key in state if key not in tensors)
        self._unused[:] = [module]
        return StateDict(entries, others, _versions(module, state), ties_of(module))

    def parameters(self) -> list[Parameter]:
        """Its parameters by all their names, in the order in which optimizers number them."""
        module = self.on_meta()
        places: dict[int, int] = {}
        return [
            Parameter(key, places.setdefault(id(it), len(places)), it.requires_grad)
            for key, it in module.named_parameters(remove_duplicate=False)
        ]

    def entries(self) -> tuple[TensorEntry, ...]:
        """Keys, dtypes and shapes of its tensors, in the order of its state_dict."""
        return tuple(self.state().entries)

    def source(self) -> str | None:
        """The text of the file that defines it; None if it cannot be read."""
        if self.path is None:
            return None
        try:
            with tokenize.open(self.path) as file:
                return file.read()
        except (OSError, SyntaxError, UnicodeDecodeError):
            return None


def _versions(module: "nn.Module", state: object) -> Mapping[str, Any] | None:
    """The `_metadata` of a state_dict, with the `ckpt_schema` of the classes that have one."""
    versions: Mapping[str, Any] | None = getattr(state, "_metadata", None)
    if versions is None:
        return None
    for name, inner in module.named_modules():
        number = getattr(inner, "ckpt_schema", None)
        if type(number) is int and isinstance(versions.get(name), dict):
            versions[name]["ckpt_schema"] = number
    return versions


def ties_of(module: "nn.Module") -> dict[str, str]:
    """Names of parameters and buffers that are the same object as an earlier one."""
    first: dict[int, str] = {}
    named = chain(
        module.named_parameters(remove_duplicate=False),
        module.named_buffers(remove_duplicate=False),
    )
    found = [(name, first.setdefault(id(tensor), name)) for name, tensor in named]
    return {name: kept for name, kept in found if name != kept}


def find_definition(ref: str, arguments: Mapping[str, object] | None = None) -> Definition:
    """Import a definition.

    Args:
        ref: ``path/to/file.py:Class`` or ``package.module:Class``; a path has a separator, or
            ends in ``.py`` before the colon. ``(depth=2)`` after it passes arguments.
        arguments: Passed to it, by name.

    Raises:
        RefError: No such file, module or class; the hint has the nearest names.
        DefinitionError: The file's own code raises.
    """
    named, bracket, written = ref.partition("(")
    module, name = imported(ref, named)
    place = named.rpartition(":")[0]
    factory = getattr(module, name, None)
    if not callable(factory):
        raise RefError(f"{place}: has no class {name}", hint=nearest(name, module, place))
    folder = Path(place).absolute().parent if is_path(place) else None
    arguments = {
        **(written_arguments(ref, bracket + written) if bracket else {}),
        **(arguments or {}),
    }
    called = partial(factory, **arguments) if arguments else factory
    return Definition(ref, _defining_file(factory, module), folder, called)


def definition_of(model: object, arguments: Mapping[str, object] | None = None) -> Definition:
    """The definition that a class is, a function that returns a module, or a module itself.

    Args:
        model: It, or a ref; a module is built again by copying it without its values.
        arguments: Passed to a class or function, by name.

    Raises:
        UsageError: It is none of these.
    """
    if isinstance(model, str):
        return find_definition(model, arguments)
    from torch import nn

    if isinstance(model, nn.Module):
        return Definition(_ref_of(type(model)), _file_of(type(model)), None, partial(_bare, model))
    factory = _expect_factory(model)
    called = partial(factory, **arguments) if arguments else factory
    return Definition(_ref_of(factory), _file_of(factory), None, called)


def _expect_factory(model: object) -> Callable[..., object]:
    from torch import nn

    if not callable(model) or (isinstance(model, type) and not issubclass(model, nn.Module)):
        name = getattr(model, "__name__", type(model).__name__)
        raise UsageError(f"{name}: expected a torch.nn.Module, or a class of them")
    return model


def _bare(module: "nn.Module") -> "nn.Module":
    """A copy of a module on the meta device; tied tensors stay tied."""
    from copy import deepcopy

    tensors = {id(it): it for it in (*module.parameters(), *module.buffers())}
    bare = {at: _without_values(it) for at, it in tensors.items()}
    return deepcopy(module, dict[int, Any](bare))


def _without_values(tensor: "Tensor") -> "Tensor":
    from torch import nn

    bare = tensor.detach().to("meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(bare, requires_grad=tensor.requires_grad)
    return bare


def _ref_of(factory: object) -> str:
    """How the command line would name it; its bare name, if that cannot import it."""
    name = getattr(factory, "__qualname__", type(factory).__name__)
    place = getattr(factory, "__module__", None)
    can_import = place not in (None, "__main__", "builtins") and name.isidentifier()
    return f"{place}:{name}" if can_import else name


def importable_ref(factory: object) -> str:
    """The ref by which another process finds a class, or a function that returns a module.

    Raises:
        UsageError: It is something else, e.g. a module; or it cannot be imported by its name,
            because it is in ``__main__``, as in a notebook, or within a function.
    """
    from torch import nn

    if isinstance(factory, nn.Module):
        raise UsageError(
            f"{type(factory).__name__} is a module, expected its class",
            hint="a run begins with new weights; init= takes those of a version or file",
        )
    _expect_factory(factory)
    ref = _ref_of(factory)
    place, colon, name = ref.rpartition(":")
    if not colon or getattr(sys.modules.get(place), name, None) is not factory:
        raise UsageError(
            f"{name.rpartition('.')[2]} cannot be imported by its name",
            hint='write it into a file of its own, and pass "net.py:Net"',
        )
    return ref


def _file_of(factory: Any) -> Path | None:
    with contextlib.suppress(TypeError, OSError):
        file = inspect.getsourcefile(inspect.unwrap(factory))
        return Path(file) if file else None
    return None


def load_strictly(
    module: "nn.Module", state: "Mapping[str, Tensor]", complaint: str, hint: str | None = None
) -> None:
    """Load a state_dict, all of its keys and no others; `complaint` begins the `FitError`."""
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise FitError(f"{complaint}: {reason}", hint=hint) from error


def _defining_file(factory: Callable[[], object], module: ModuleType) -> Path | None:
    try:
        file = inspect.getsourcefile(inspect.unwrap(factory))
    except TypeError:  # a callable object, or built in
        file = module.__file__
    return Path(file) if file else None

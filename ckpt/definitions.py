"""Definitions: the `nn.Module` classes that a state_dict must fit.

A ref is ``path/to/file.py:Class`` or ``package.module:Class``; a function that returns a
module also works (``torchvision.models:resnet18``). Finding one imports that file, which runs
its code and nothing else; its prints go to stderr, so that stdout has only the answer. torch is
imported inside the functions that need it.
"""

import ast
import contextlib
import hashlib
import importlib.util
import inspect
import sys
import tokenize
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, partial
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ckpt.errors import CkptError, FitError, MissingFileError, RefError, UsageError
from ckpt.tensors import StateDict, TensorEntry

if TYPE_CHECKING:
    from torch import Tensor, nn


class DefinitionError(CkptError):
    """A definition's own code fails, or does not return a module."""

    exit_code = 3


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

        with own_code(self.ref), _importable(self.folder):
            module = self.factory()
        if not isinstance(module, nn.Module):
            raise DefinitionError(
                f"{self.ref}: returns {type(module).__name__}, expected torch.nn.Module"
            )
        return module

    def run(self, module: "nn.Module", *places: "Tensor", **names: "Tensor") -> object:
        """The output of a module that `build` made; a RuntimeError, which is torch's, passes."""
        with contextlib.redirect_stdout(sys.stderr), _importable(self.folder):
            try:
                return module(*places, **names)
            except RuntimeError:
                raise
            except Exception as error:
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
    module, name = _imported(ref, named)
    place = named.rpartition(":")[0]
    factory = getattr(module, name, None)
    if not callable(factory):
        raise RefError(f"{place}: has no class {name}", hint=_nearest(name, module, place))
    folder = Path(place).absolute().parent if _is_path(place) else None
    arguments = {**(_written(ref, bracket + written) if bracket else {}), **(arguments or {})}
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
    if not callable(model) or (isinstance(model, type) and not issubclass(model, nn.Module)):
        name = getattr(model, "__name__", type(model).__name__)
        raise UsageError(f"{name}: expected a torch.nn.Module, or a class of them")
    called = partial(model, **arguments) if arguments else model
    return Definition(_ref_of(model), _file_of(model), None, called)


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


def _file_of(factory: Any) -> Path | None:
    with contextlib.suppress(TypeError, OSError):
        file = inspect.getsourcefile(inspect.unwrap(factory))
        return Path(file) if file else None
    return None


def find_value(ref: str) -> object:
    """Import a value, ``path/to/file.py:NAME``, as `find_definition` imports a class."""
    module, name = _imported(ref, ref)
    if not hasattr(module, name):
        place = ref.rpartition(":")[0]
        names = [key for key in vars(module) if not key.startswith("_")]
        near = get_close_matches(name, names) or names[:5]
        raise RefError(f"{place}: has no {name}", hint=f"it has {', '.join(near) or 'no names'}")
    return getattr(module, name)


def _imported(ref: str, named: str) -> tuple[ModuleType, str]:
    """The module that a ref names, and the name within it."""
    place, colon, name = named.rpartition(":")
    if not colon or not place or not name.isidentifier():
        hint = "write path/to/file.py:Class or package.module:Class"
        raise RefError(f"{ref}: not a definition", hint=hint)
    if _is_path(place):
        return _import_file(ref, Path(place)), name
    return _import_module(ref, place), name


def _is_path(place: str) -> bool:
    return place.endswith(".py") or "/" in place or "\\" in place


def _written(ref: str, call: str) -> dict[str, object]:
    """The arguments in ``(depth=2, norm="batch")``: names and literals."""
    try:
        parsed = ast.parse(f"f{call}", mode="eval").body
        if not (isinstance(parsed, ast.Call) and isinstance(parsed.func, ast.Name)) or parsed.args:
            raise ValueError("no call, or values without names")
        values = {it.arg or "**": ast.literal_eval(it.value) for it in parsed.keywords}
        if "**" in values:
            raise ValueError("a mapping")
        return values
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        hint = "e.g. net.py:Net(depth=2)"
        raise RefError(f"{ref}: its arguments are not NAME=VALUE", hint=hint) from error


@cache  # torch.library withdraws the declarations when the result is deleted
def declare_torchvision_ops() -> object:
    """Make torchvision importable with a torch that its compiled operators do not fit.

    On import it registers fakes for ``torchvision::nms`` and ``torchvision::qnms``, and raises
    "operator torchvision::nms does not exist" if its library cannot be loaded (PyPI's wheel is
    built for CUDA). Datasets, transforms and models need neither, so their schemas are enough.
    A library that loads brings the operators itself.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    import torch

    if hasattr(torch.ops.torchvision, "nms"):
        return None
    for library in Path(spec.origin).parent.glob("_C*"):
        with contextlib.suppress(OSError):
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
            return None
    schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    fragment = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        fragment.define(operator + schema)  # type: ignore[no-untyped-call]
    return fragment


def _import_file(ref: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file", hint=_nearest_file(path))
    path = path.absolute()
    # A private name: the file may have the name of a module of ours or of a library.
    name = "_ckpt_definition_" + hashlib.sha256(str(path).encode()).hexdigest()[:16]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RefError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and inspect look a class's module up by name
    try:
        with own_code(ref), _importable(path.parent):
            declare_torchvision_ops()
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(ref: str, name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise RefError(f"{name}: not a module name")
    with own_code(ref), _importable(None):
        declare_torchvision_ops()
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            # A module that the definition itself imports is a DefinitionError.
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise RefError(f"{ref}: no module {error.name}") from error


def load_strictly(
    module: "nn.Module", state: "Mapping[str, Tensor]", complaint: str, hint: str | None = None
) -> None:
    """Load a state_dict, all of its keys and no others; `complaint` begins the `FitError`."""
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise FitError(f"{complaint}: {reason}", hint=hint) from error


@contextlib.contextmanager
def own_code(ref: str, passes: Callable[[BaseException], bool] = lambda _: False) -> Iterator[None]:
    """Run foreign code: its prints go to stderr, its exceptions become one line.

    Raises:
        DefinitionError: With the kind of the exception, and the line of that code as the hint.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except CkptError:
        raise
    except (Exception, SystemExit) as error:
        if passes(error):
            raise
        text = " ".join(str(error).split())
        hint = "name a file of a package package.module:Class" if "relative" in text else None
        if isinstance(error, TypeError) and "required positional argument" in text:
            hint = "--arg NAME=VALUE  passes an argument"
        if isinstance(error, ModuleNotFoundError):
            missing = str(error.name).partition(".")[0]
            hint = f"{sys.prefix} has no {missing}; install ckpt beside your project's packages"
        hint = hint or _place(error)
        raise DefinitionError(f"{ref}: raises {type(error).__name__}: {text}", hint=hint) from error


def _place(error: BaseException) -> str | None:
    """The last line of a user's own code that an exception came through."""
    not_theirs = (sys.prefix, sys.base_prefix, str(Path(__file__).parent), "<")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(not_theirs):
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    return None


@contextlib.contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    """Let code import the modules beside it for a while, as Python does for a script.

    Modules of `folder` are then removed again: another definition's ``layers.py`` must not be
    mistaken for this one's. Without a folder, the current one is searched, last.
    """
    before, known = list(sys.path), set(sys.modules)
    sys.path[:] = [*before, str(Path.cwd())] if folder is None else [str(folder), *before]
    try:
        yield
    finally:
        sys.path[:] = before
        new = set(sys.modules) - known
        beside = {name for name in new if "." not in name and _lies_in(name, folder)}
        for name in new:
            if name.partition(".")[0] in beside:
                del sys.modules[name]


def _lies_in(name: str, folder: Path | None) -> bool:
    """Whether a module is ``folder/name.py`` or ``folder/name/__init__.py``."""
    file = Path(getattr(sys.modules[name], "__file__", None) or "")
    return folder in (file.parent, file.parent.parent)


def _defining_file(factory: Callable[[], object], module: ModuleType) -> Path | None:
    try:
        file = inspect.getsourcefile(inspect.unwrap(factory))
    except TypeError:  # a callable object, or built in
        file = module.__file__
    return Path(file) if file else None


def _nearest(name: str, module: ModuleType, place: str) -> str:
    from torch import nn

    values = vars(module).items()
    classes = [key for key, it in values if isinstance(it, type) and issubclass(it, nn.Module)]
    if not classes:
        return f"{place} defines no torch.nn.Module"
    near = get_close_matches(name, classes, n=3, cutoff=0.5)
    intro = "did you mean" if near else "it has"
    return f"{intro} {', '.join(f'{place}:{key}' for key in near or classes[:5])}"


def _nearest_file(path: Path) -> str | None:
    names = [file.name for file in path.parent.glob("[!_]*.py")]
    near = get_close_matches(path.name, names, n=3, cutoff=0.5)
    return "did you mean " + ", ".join(str(path.parent / name) for name in near) if near else None

"""Import what a ref of a definition names: a file's or a module's class, function or value.

Importing a file runs its code and nothing else; its prints go to stderr, so that stdout has only
the answer.
"""

import ast
import contextlib
import hashlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import ModuleType

from ckpt.errors import CkptError, MissingFileError, RefError

_CODE_BYTES = 1 << 20  # of Python code, in which classes are looked for


class DefinitionError(CkptError):
    """A definition's own code fails, or does not return a module."""

    exit_code = 3


def find_value(ref: str) -> object:
    """Import a value, ``path/to/file.py:NAME``, as `find_definition` imports a class."""
    module, name = imported(ref, ref)
    if not hasattr(module, name):
        place = ref.rpartition(":")[0]
        names = [key for key in vars(module) if not key.startswith("_")]
        near = get_close_matches(name, names) or names[:5]
        raise RefError(f"{place}: has no {name}", hint=f"it has {', '.join(near) or 'no names'}")
    return getattr(module, name)


def imported(ref: str, named: str) -> tuple[ModuleType, str]:
    """The module that a ref names, and the name within it."""
    place, colon, name = named.rpartition(":")
    if not colon or not place or not name.isidentifier():
        expect_class(Path(named))
        hint = "write path/to/file.py:Class or package.module:Class"
        raise RefError(f"{ref}: not a definition", hint=hint)
    if is_path(place):
        return _import_file(ref, Path(place)), name
    return _import_module(ref, place), name


def expect_class(path: Path) -> None:
    """Refuse a file of Python code that is named without a class.

    Raises:
        RefError: Its hint has the first classes of the file.
    """
    if path.suffix != ".py" or not path.is_file():
        return
    with path.open("rb") as file:
        text = file.read(_CODE_BYTES).decode("utf-8", "replace")
    names = re.findall(r"^class (\w+)\(", text, re.MULTILINE)
    shown = [f"{path}:{name}" for name in names[:5]] or [f"{path}:Class"]
    raise RefError(f"{path}: Python code, and no class is named", hint="  ".join(shown))


def is_path(place: str) -> bool:
    """Whether the part of a ref before the colon names a file, not a module."""
    return place.endswith(".py") or "/" in place or "\\" in place


def written_arguments(ref: str, call: str) -> dict[str, object]:
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
            torch.ops.load_library(str(library))
            return None
    schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    fragment = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        fragment.define(operator + schema)
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
        with own_code(ref), importable(path.parent):
            declare_torchvision_ops()
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(ref: str, name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise RefError(f"{name}: not a module name")
    with own_code(ref), importable(None):
        declare_torchvision_ops()
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            # A module that the definition itself imports is a DefinitionError.
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise RefError(f"{ref}: no module {error.name}") from error


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
        relative = isinstance(error, ImportError) and "relative" in text
        hint = "name a file of a package package.module:Class" if relative else None
        if isinstance(error, TypeError) and "required positional argument" in text:
            hint = "--arg NAME=VALUE  passes an argument"
        if isinstance(error, ModuleNotFoundError):
            missing = str(error.name).partition(".")[0]
            hint = f"{sys.prefix} has no {missing}; install ckpt beside your project's packages"
        hint = hint or _place(error)
        raise DefinitionError(f"{ref}: raises {type(error).__name__}: {text}", hint=hint) from error


def _place(error: BaseException) -> str | None:
    """The last line of a user's own code that an exception came through."""
    not_theirs = (sys.prefix, sys.base_prefix, str(Path(__file__).parent.parent), "<")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(not_theirs):
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    return None


@contextlib.contextmanager
def importable(folder: Path | None) -> Iterator[None]:
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


def nearest(name: str, module: ModuleType, place: str) -> str:
    """A hint: the classes of a module with names like `name`, or all of them."""
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

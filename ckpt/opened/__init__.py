"""Open what a ref names, or what is in memory: a version, a file or a definition.

All three have entries. In Python, a state_dict or module in memory is a file that is not written,
and a class is a definition.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from os import PathLike, fspath
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, TypeVar

from ckpt.errors import NoModelError, RefError, UsageError
from ckpt.formats import open_checkpoint
from ckpt.formats.paths import open_path, within
from ckpt.in_memory import is_module, name_of, unsaved
from ckpt.io.files import exists
from ckpt.opened.named import Defined, Named, Weights, WeightsOrClass
from ckpt.opened.states import (
    Opened,
    OpenedDefinition,
    OpenedFile,
    OpenedMemory,
    OpenedPart,
    OpenedState,
    OpenedVersion,
)
from ckpt.refs import (
    SUFFIXES,
    DefinitionRef,
    FileRef,
    Ref,
    UrlRef,
    VersionRef,
    is_url,
    parse_file_ref,
    parse_ref,
    parse_url,
)
from ckpt.registry.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from ckpt.definitions import Definition
    from ckpt.registry.version import Version


Given = TypeVar("Given")
_CODE_BYTES = 1 << 20  # of Python code, in which a class is looked for
_REVISION = re.compile(r"git:.+|HEAD([~^].*)?", re.DOTALL)


@contextmanager
def open_ref(
    named: WeightsOrClass,
    registry: Registry,
    arguments: Mapping[str, object] | None = None,
    *,
    whole: bool = False,
    summed: bool = False,
) -> Iterator[Opened]:
    """Open what a ref or a path names, or what is in memory; files are closed when the block ends.

    Args:
        named: It.
        registry: Where versions are looked up.
        arguments: The arguments of a definition.
        whole: Whether its weights are needed: a server that sends only whole files sends one.
        summed: Whether what is in memory gets checksums, since it will be written.

    Raises:
        RefError: Nothing has this name.
        FormatError: The file is not a checkpoint that can be read.
        UsageError: It is nothing that could hold weights.
    """
    named = as_ref(named)
    if not isinstance(named, str | PathLike):
        yield _open_value(named, arguments, summed=summed)
        return
    text, ref = fspath(named), parse_named(named, registry)
    if isinstance(ref, FileRef):
        _expect_class(ref.path)
        file = within(ref)
        with open_path(file.path) as source:
            checkpoint = open_checkpoint(source, inside=file.inside)
            yield OpenedFile(text, file.path, file.inside, checkpoint)
    elif isinstance(ref, UrlRef):
        opening = import_module("ckpt.remote.elsewhere.opening")  # a layer above, and optional
        with opening.open_url(text, ref, whole=whole) as elsewhere:
            yield elsewhere
    elif isinstance(ref, DefinitionRef) and not _is_model(ref, registry):
        yield _described(text, _definition(ref, arguments, registry), arguments)
    else:
        yield open_version(text, ref, registry)


def open_version(text: str, ref: Ref, registry: Registry, place: str = "") -> OpenedState:
    """Open a version, or one state_dict of its file; the registered one is the version.

    Args:
        text: The ref as it was typed.
        ref: The same, parsed.
        registry: That has it.
        place: What the names of versions begin with: ``URL#`` of a registry elsewhere.

    Raises:
        RefError: There is no such version.
    """
    inside = None
    if isinstance(ref, VersionRef):
        ref, inside = replace(ref, inside=None), ref.inside
    version = _version(text, ref, registry)
    source, name = registry.source(version), place + version.ref
    if inside in (None, source.manifest.inside):
        return OpenedVersion(name, version, source, registry)
    checkpoint = open_checkpoint(source, inside=inside)
    return OpenedPart(f"{name}::{inside}", Path(version.ref), inside, checkpoint)


def as_ref(named: Given) -> Given | str:
    """The ref of a version of the registry; all else as it is."""
    if isinstance(named, str | PathLike):
        return named
    from ckpt.registry.adding import Added
    from ckpt.registry.version import Version

    version = named.version if isinstance(named, Added) else named
    return version.ref if isinstance(version, Version) else named


def _open_value(value: Any, arguments: Mapping[str, object] | None, *, summed: bool) -> Opened:
    """Open what is in memory; a module without values is a definition."""
    opened = getattr(value, "opened", None)
    if isinstance(opened, OpenedFile | OpenedVersion):  # of `ckpt.open`
        return opened
    if isinstance(value, Mapping) or (is_module(value) and _has_values(value)):
        name = name_of(value)
        source = unsaved(value, name=name, file_name=f"{name}.pt", summed=summed)
        return OpenedMemory(name, Path(f"<{name}>"), None, open_checkpoint(source), value)
    if callable(value):
        return opened_definition(value, arguments)
    raise UsageError(
        f"{type(value).__name__}: expected a ref, a path, a state_dict, a module or a class"
    )


def _has_values(module: Any) -> bool:
    tensors = [*module.parameters(), *module.buffers()]
    return not tensors or any(not tensor.is_meta for tensor in tensors)


def opened_definition(
    named: "str | Defined | nn.Module", arguments: Mapping[str, object] | None = None
) -> OpenedDefinition:
    """Open what can only be a definition; a module stands for its class as it was built."""
    from ckpt.definitions import definition_of

    definition = definition_of(named, arguments)
    return _described(definition.ref, definition, arguments)


def parse_named(named: Named, registry: Registry) -> Ref:
    """The ref that somebody typed; a path that exists, and that no version is named like, is one.

    Raises:
        UsageError: The text fits none of the forms, and is not a path that exists.
    """
    text = fspath(named)
    if not isinstance(named, str):
        return parse_file_ref(text)
    if is_url(text):
        return parse_url(text)
    is_there = bool(text) and exists(Path(text))
    model = text.partition(":")[0]
    if not is_there and _REVISION.fullmatch(text) and model not in registry.index().models:
        raise _is_revision(text)
    try:
        ref = parse_ref(text)
        if is_there and isinstance(ref, VersionRef):
            registry.version(ref)
    except UsageError:
        if not is_there:
            raise
        return FileRef(Path(text))
    return ref


def _is_revision(text: str) -> RefError:
    name = text.removeprefix("git:")
    return RefError(
        f"{text}: a revision of git, expected a version, a file or a class",
        hint="which versions it changed, after  ckpt git-driver install :\n"
        f"git diff {quote(name)} -- registry.json\n"
        "whether a class still loads the checkpoints of its earlier form:\n"
        f"ckpt guard models/net.py:Net --against {quote(f'git:{name}')}",
    )


@contextmanager
def open_state(text: Weights, registry: Registry, *, summed: bool = False) -> Iterator[OpenedState]:
    """Open a version, a file or what is in memory; a definition holds no weights."""
    with open_ref(text, registry, whole=True, summed=summed) as opened:
        if isinstance(opened, OpenedDefinition):
            raise RefError(f"{opened.name} is a definition and holds no weights")
        yield opened


def as_typed(definition: str, arguments: Mapping[str, object] | None) -> str:
    """A definition as one types it, ``net.py:Net --arg width=64``."""
    texts = (f"{name}={value}" for name, value in (arguments or {}).items())
    return " ".join([definition, *(f"--arg {quote(text)}" for text in texts)])


def _described(
    text: str, definition: "Definition", arguments: Mapping[str, object] | None
) -> OpenedDefinition:
    return OpenedDefinition(as_typed(text, arguments), definition, definition.state())


def _definition(
    ref: DefinitionRef, arguments: Mapping[str, object] | None, registry: Registry
) -> "Definition":
    from ckpt.definitions import find_definition

    try:
        return find_definition(ref.text, arguments)
    except RefError as error:
        if ref.version is None or "." in str(ref.version.model):
            raise
        none = f"no model {ref.version.model} in the registry" if registry.exists else "no registry"
        raise RefError(f"{ref.text}: {none}, and no such module", hint=f"{error}") from error


def _is_model(ref: DefinitionRef, registry: Registry) -> bool:
    return ref.version is not None and ref.version.model in registry.index().models


def _version(text: str, ref: Ref, registry: Registry) -> "Version":
    try:
        return registry.version(ref)
    except RefError as error:
        bare, meant = text.partition("::")[0], _meant(text, registry)
        if isinstance(error, NoModelError) and isinstance(ref, VersionRef) and ref.model == bare:
            raise NoModelError(
                f"no model, file or folder {bare!r}", hint=meant or error.hint
            ) from error
        if meant is None:
            raise
        raise RefError(str(error), hint=meant) from error


def _meant(text: str, registry: Registry) -> str | None:
    """A hint for a ref that names no version: an alias without its model, or a file."""
    if aliases := [f"{each.name}@{text}" for each in registry.index().models.values()
                   if text in each.aliases]:  # fmt: skip
        return f"{' or '.join(aliases)}  is the version with this alias"
    if (named := _class_of(text)) is not None:
        return f"or the class {named}?"
    files = sorted(path.name for path in Path.cwd().glob("*.*") if path.suffix in SUFFIXES)
    near = [name for name in files if name.startswith(f"{text}.")]
    if not near and "." in text:
        from difflib import get_close_matches

        near = get_close_matches(text, files, n=1)
    return f"or the file {near[0]}?" if near else None


def _expect_class(path: Path) -> None:
    if path.suffix == ".py":
        from ckpt.definitions.importing import expect_class

        expect_class(path)


def _class_of(text: str) -> str | None:
    """The ref of a class that is written as Python imports it, ``net.Net``."""
    module, _, name = text.rpartition(".")
    path = Path(f"{module.replace('.', '/')}.py")
    if not path.is_file():
        return None
    code = path.read_bytes()[:_CODE_BYTES].decode("utf-8", "replace")
    is_there = re.search(rf"^class {re.escape(name)}\b", code, re.MULTILINE)
    return f"{path}:{name}" if is_there else None

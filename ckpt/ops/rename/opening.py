"""Open what a rename reads: its source, and what the result must fit."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ckpt.errors import AmbiguousStateError, PlanError, UsageError
from ckpt.formats import ALL, COPIES
from ckpt.in_memory import is_module
from ckpt.opened import as_ref, open_ref, open_state, opened_definition, parse_named
from ckpt.opened.altered import with_copies
from ckpt.opened.named import Named, Weights, WeightsOrClass
from ckpt.opened.states import Opened, OpenedFile, OpenedPart, OpenedState
from ckpt.ops.rename.training.optimizers import weights_in
from ckpt.refs import DefinitionRef
from ckpt.registry.registry import Registry

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def open_source(
    source: Weights, registry: Registry, goal: Mapping[str, Any]
) -> Iterator[OpenedState]:
    """Like `open_state`, but open all state_dicts of a file together if they are copies.

    Args:
        source: A file or a version.
        registry: Where versions are looked up.
        goal: Whether a ref to one state_dict stands for all of its copies; and a definition, which
            a folder with an optimizer cannot fit as a whole: its weights stand for it.
    """
    source, copies = as_ref(source), goal.get("copies", False)
    if not isinstance(source, str | PathLike):
        with open_state(source, registry) as opened:
            yield opened
        return
    text = fspath(source)
    with ExitStack() as stack:
        if copies and "::" in text:
            named = stack.enter_context(_opened_as(source, text + COPIES, registry))
            yield replace(named, name=text)
            return
        try:
            opened = stack.enter_context(open_state(source, registry))
        except AmbiguousStateError as ambiguous:
            try:
                opened = stack.enter_context(_opened_as(source, f"{text}::{ALL}", registry))
            except AmbiguousStateError:
                raise ambiguous from None
        if isinstance(opened, OpenedPart):
            raise UsageError(
                f"{opened.name} is a part of a version; a rename takes the whole version or a file",
                hint=f"ckpt export {opened.name} -o NEW.pt  makes a file of it",
            )
        if (name := weights_in(opened)) and _names_class(goal, registry):
            if not isinstance(opened, OpenedFile):
                raise PlanError(
                    f"{opened.name}: the version of a whole folder, whose optimizer no class has",
                    hint=f"ckpt export {opened.name} -o DIR  and rename DIR::{name} --all",
                )
            text = f"{text}::{name}"
            named = stack.enter_context(_opened_as(source, text + COPIES, registry))
            yield replace(named, name=text)
            return
        yield with_copies(opened) if copies else opened


def _names_class(goal: Mapping[str, Any], registry: Registry) -> bool:
    to = goal.get("to")
    if to is None or not isinstance(to, str | PathLike):
        return bool(goal.get("check")) or callable(to)
    return bool(goal.get("check")) or isinstance(parse_named(to, registry), DefinitionRef)


def _opened_as(source: Named, text: str, registry: Registry) -> AbstractContextManager[OpenedState]:
    """Open a longer form of a ref, which stays a path if it was one."""
    return open_state(text if isinstance(source, str) else Path(text), registry)


@contextmanager
def open_target(
    to: WeightsOrClass, registry: Registry, arguments: Mapping[str, object] | None
) -> Iterator[Opened]:
    """Open what a result must fit; of a module the class counts, not its weights."""
    if is_module(to):
        yield opened_definition(cast("nn.Module", to), arguments)
    else:
        with open_ref(to, registry, arguments) as opened:
            yield opened

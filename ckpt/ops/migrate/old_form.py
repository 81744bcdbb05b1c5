"""The old form of a class: a checkpoint, a version, a class, or the class at a revision."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from os import fspath
from pathlib import Path

from ckpt.definitions import Definition
from ckpt.errors import UsageError
from ckpt.migrate.described import USUAL_SECONDS, Builder, BuildError
from ckpt.migrate.revision import PREFIX, at_revision
from ckpt.migrate.schema import differing
from ckpt.opened import open_ref
from ckpt.opened.named import Named
from ckpt.opened.states import Opened, OpenedDefinition, OpenedVersion
from ckpt.ops.migrate.old_model import PROGRAM, old_model
from ckpt.ops.migrate.stored import stored_class
from ckpt.prove.runs import Model, Side
from ckpt.registry.registry import Registry
from ckpt.tensors import StateDict

Runs = Callable[[], AbstractContextManager[Model]]


@dataclass(frozen=True, slots=True)
class OldForm:
    """The old form of a class.

    Attributes:
        opened: Its keys.
        state: The state_dict of its class.
        runs: Builds its class for a proof, always with the same weights; None if it cannot.
        why_not: Why not.
    """

    opened: Opened
    state: StateDict
    runs: Runs | None = None
    why_not: str | None = None


@contextmanager
def old_form(
    old: Named,
    definition: str,
    arguments: Mapping[str, object] | None,
    registry: Registry,
    *,
    run_stored: bool,
    seconds: float = USUAL_SECONDS,
) -> Iterator[OldForm]:
    """Open it.

    Args:
        old: A ref; or ``git:REV``, the class as a revision has it.
        definition: The class.
        arguments: The arguments of both.
        registry: Where versions are looked up.
        run_stored: Whether the source that a version stores may run, whoever wrote it.
        seconds: How long another process may take to build it.

    Raises:
        BuildError: The class cannot be built at the revision.
    """
    text = fspath(old)
    if text.startswith(PREFIX):
        name, _, other = text.removeprefix(PREFIX).partition(":")
        with _of_revision(name, other or definition, arguments, seconds) as form:
            yield form
        return
    with open_ref(old, registry, arguments) as opened:
        if isinstance(opened, OpenedDefinition) and opened.definition.path is not None:
            yield OldForm(opened, opened.state, partial(_here, opened.definition))
        elif isinstance(opened, OpenedVersion):
            with _of_version(opened, run=run_stored, seconds=seconds) as form:
                yield form
        else:
            why_not = "the old class is not at hand:  --from OLD.py:Class  runs both"
            yield OldForm(opened, opened.state, why_not=why_not)


def _here(definition: Definition) -> AbstractContextManager[Model]:
    """A class of this work tree, with new weights, always the same ones."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nullcontext(Side(definition, definition.build().eval()))


@contextmanager
def _of_revision(
    name: str, definition: str, arguments: Mapping[str, object] | None, seconds: float
) -> Iterator[OldForm]:
    """The class as a revision has it."""

    def gone() -> object:
        raise UsageError(f"{described.ref}: it is of another revision")

    with (
        at_revision(Path.cwd(), name) as revision,
        Builder(revision.folder, seconds=seconds, revision=revision, program=PROGRAM) as builder,
    ):
        described = builder.describe(definition, arguments)
        called = f"{described.ref} at {revision.commit[:12]}"  # a branch moves on
        opened = OpenedDefinition(called, Definition(called, None, None, gone), described.state)
        runs = partial(old_model, builder, definition, arguments, called)
        yield OldForm(opened, described.state, runs)


@contextmanager
def _of_version(opened: OpenedVersion, *, run: bool, seconds: float) -> Iterator[OldForm]:
    """The class that a version was trained with, if its keys are those of the version."""
    with stored_class(opened, run=run, seconds=seconds) as stored:
        if isinstance(stored, str):
            yield OldForm(opened, opened.state, why_not=stored)
            return
        try:
            state = stored.builder.describe(stored.definition).state
        except BuildError as error:
            yield OldForm(opened, opened.state, why_not=str(error))
            return
        if any(differing(opened.state.named, state.named)):
            why_not = f"{stored.definition}, whose source {opened.name} stores, has other keys"
            yield OldForm(opened, opened.state, why_not=why_not)
            return
        runs = partial(
            old_model, stored.builder, stored.definition, None, f"the class of {opened.name}"
        )
        yield OldForm(opened, state, runs)

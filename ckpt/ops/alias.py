"""Aliases: names such as `mnist-cnn@prod` that point to a version and can move.

They are checked and changed under the index's lock. A protected alias moves only if the caller
names the version that it points to. Every change leaves an event in the model's shared history.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar

from ckpt.errors import ConditionError, ConflictError, NoAliasError, RefError, UsageError
from ckpt.printed import Printed
from ckpt.refs import expect_alias, is_alias, is_version
from ckpt.registry.adding.labels import expect_movable
from ckpt.registry.condition import expect_fields, parse_condition, values_text
from ckpt.registry.events import Event
from ckpt.registry.history.newest import newest, newest_versions
from ckpt.registry.index import Index, Model
from ckpt.registry.later_words import expect_short
from ckpt.registry.registry import InRegistry, Registry
from ckpt.registry.version import Version

NOTHING = "none"  # the expected version of an alias that does not exist yet
_MOVES = ("alias", "unalias", "protect", "unprotect")


@dataclass(frozen=True, slots=True, repr=False)
class Alias(Printed):
    """An alias after a change.

    Attributes:
        version: ``v2``; None if it was deleted.
        before: The version that it pointed to before, if any.
        protected: Whether it moves only with the expected version.
        changed: Whether anything was changed.
    """

    VIEW: ClassVar = "ckpt.show.alias:alias_text"

    model: str
    name: str
    version: str | None
    before: str | None
    protected: bool
    changed: bool = True

    @property
    def ref(self) -> str:
        """``mnist-cnn@prod``."""
        return f"{self.model}@{self.name}"


@dataclass(frozen=True, slots=True)
class Moved:
    """One event in the history of an alias.

    Attributes:
        model: The model of the alias.
        event: The event.
        now: The label that the version has now; None if it is gone.
    """

    model: str
    event: Event
    now: str | None


@dataclass(frozen=True, slots=True, repr=False)
class AliasHistory(Printed):
    """What aliases pointed to.

    Attributes:
        aliases: The aliases as they are, of those asked for.
        moves: Their changes, newest first.
    """

    VIEW: ClassVar = "ckpt.show.alias:history_text"

    aliases: tuple[Alias, ...]
    moves: tuple[Moved, ...]


def aliases(name: str | None = None, *, registry: InRegistry | None = None) -> list[Alias]:
    """The aliases, by model and name.

    Args:
        name: Only these: ``prod`` of any model, or ``mnist-cnn@prod``; None for all.
        registry: The registry; None finds it as the command line does.

    Raises:
        RefError: There is no alias `name`.

    Example:
        >>> [(alias.ref, alias.version) for alias in ckpt.aliases()]
        [('net@prod', 'v1')]
    """
    registry = Registry.of(registry)
    if name is not None:
        registry.expect_there()
    models = registry.index().models
    every = [
        Alias(
            model.name, short, f"v{number}", f"v{number}", short in model.protected, changed=False
        )
        for _, model in sorted(models.items())
        for short, number in sorted(model.aliases.items())
    ]
    found = [each for each in every if name in (None, each.name, each.ref)]
    if name is not None and not found:
        known = ", ".join(each.ref for each in every)
        hint = f"known: {known}" if known else f"ckpt alias {name} REF  creates it"
        raise RefError(f"no alias {name!r}", hint=hint)
    return found


def alias_history(name: str | None = None, *, registry: InRegistry | None = None) -> AliasHistory:
    """What an alias pointed to, who moved it, and why.

    Args:
        name: ``prod`` of any model, or ``mnist-cnn@prod``; None for all aliases.
        registry: The registry; None finds it as the command line does.

    Raises:
        RefError: There never was such an alias.

    Example:
        >>> [(moved.event.did, moved.now) for moved in ckpt.alias_history("net@prod").moves]
        [('alias', 'v1')]
    """
    registry = Registry.of(registry)
    index = registry.index()
    owner, _, short = (name or "").rpartition("@")
    models = [index.model(owner)] if owner else list(index.models.values())
    labels = {
        (model.name, manifest): version.label
        for model in models
        for version in model.every_version()
        for manifest in version.manifests
    }
    moves = [
        Moved(model.name, event, labels.get((model.name, event.manifest)))
        for model in models
        for event in model.log
        if event.did in _MOVES and short in ("", event.name)
    ]
    moves.sort(key=lambda moved: datetime.fromisoformat(moved.event.at), reverse=True)
    found = [each for each in aliases(registry=registry) if name in (None, each.name, each.ref)]
    if name and not (found or moves):
        known = ", ".join(f"{model.name}@{each}" for model in models for each in model.aliases)
        raise RefError(f"no alias {name!r}", hint=f"known: {known}" if known else "there are none")
    return AliasHistory(tuple(found), tuple(moves))


def alias(
    name: str,
    ref: str | None = None,
    *,
    expect: str | None = None,
    condition: str | None = None,
    protect: bool | None = None,
    delete: bool = False,
    message: str = "",
    registry: InRegistry | None = None,
) -> Alias:
    """Point the alias `name` to the version that `ref` names, or delete it.

    If it points there already nothing is checked, and nothing changes.

    Args:
        name: New or known, ``prod`` or ``mnist-cnn@prod``.
        ref: E.g. ``mnist-cnn:v3``, or ``v3`` of the model in `name`; None does not move it, to
            protect or delete it.
        expect: The version that it must point to now, ``v2`` or ``none``; None for any.
        condition: Move it only to a version that meets this, ``accuracy >= prod.accuracy``; see
            `ckpt.registry.condition`.
        protect: Whether it is protected from now on; None does not change that.
        delete: Delete the alias; its version stays.
        message: Why, for its history.
        registry: The registry; None finds it as the command line does.

    Raises:
        ConflictError: It points to another version, or it is protected and `expect` is None.
        ConditionError: The version does not meet the condition, or lacks a value that decides.
        RefError: There is no such version or alias.

    Example:
        >>> print(ckpt.alias("net@candidate", "v1", message="for review"))
        net@candidate points to v1
    """
    registry = Registry.of(registry)
    _expect_sound(name, ref, expect, condition, protect, delete=delete)
    expect_short(message)
    owner, _, short = name.rpartition("@")
    done: list[Alias] = []

    def changed(index: Index) -> Model:
        if delete:
            model, made = _deleted(index, owner or None, short, expect)
        else:
            model, made = _pointed(index, owner, short, ref, expect, protect, condition)
        old = index.model(model.name)
        is_same = (old.aliases, old.protected) == (model.aliases, model.protected)
        done.append(replace(made, changed=not is_same))
        return model

    registry.change(changed, lambda: _typed(done[-1], protect), message=message)
    return done[-1]


def _typed(done: Alias, protect: bool | None) -> str:
    """A change as one types it, for the log."""
    words = ["alias", "" if done.version else "-d", done.ref, done.version or ""]
    if protect is not None:
        words.append("--protect" if protect else "--unprotect")
    return " ".join(filter(None, words))


def _expect_sound(
    name: str,
    ref: str | None,
    expect: str | None,
    condition: str | None,
    protect: bool | None,
    *,
    delete: bool,
) -> None:
    """Refuse arguments that no index makes valid."""
    if condition is not None:
        parse_condition(condition, option="--if")
    if expect not in (None, NOTHING) and not is_version(str(expect)):
        raise UsageError(f"--expect is {expect!r}, expected a version such as v2, or {NOTHING}")
    if delete:
        if (ref, condition, protect) != (None, None, None):
            raise UsageError("-d takes only a name and --expect")
        return
    if ref is None and protect is None:
        hint = f"in Python, to show it:  ckpt.aliases({name!r});\nto list versions:  ckpt ls"
        raise UsageError(f"no version given: ckpt alias {name} REF", hint=hint)
    if ref is None and condition is not None:
        raise UsageError("--if needs a version to move to", hint=f"ckpt alias {name} REF")
    if ref is not None and is_alias(ref) and (":" in name or is_version(name)):
        raise UsageError(
            f"{name!r} is a version, not the name of an alias", hint=f"ckpt alias {ref} {name}"
        )
    expect_alias(name.rpartition("@")[2])


def _pointed(
    index: Index,
    owner: str,
    name: str,
    ref: str | None,
    expect: str | None,
    protect: bool | None,
    condition: str | None,
) -> tuple[Model, Alias]:
    is_move = ref is not None
    if ref is None:
        ref = f"{owner or index.model(None).name}@{name}"
    version = index.find(f"{owner}:{ref}" if owner and is_version(ref) else ref)
    if owner and version.model != owner:
        raise UsageError(
            f"{owner}@{name} cannot point to {version.ref}, a version of another model"
        )
    model = index.model(version.model)
    before: str | None = version.label
    # If it points there already there is nothing to decide: a step of a pipeline may run twice.
    if not is_move or model.aliases.get(name) != version.number:
        before = _checked(model, name, expect, moves_to=version.label)
        if condition is not None:
            _expect_holds(condition, version, index, name)
    model = model.with_alias(name, version.number, protect=protect)
    return model, Alias(model.name, name, version.label, before, name in model.protected)


def _deleted(index: Index, owner: str | None, name: str, expect: str | None) -> tuple[Model, Alias]:
    model = index.model(owner)
    if name not in model.aliases:
        known = ", ".join(f"{model.name}@{alias}" for alias in sorted(model.aliases))
        raise RefError(f"{model.name} has no alias {name!r}", hint=known or "it has none")
    before = _checked(model, name, expect, moves_to=None)
    return model.without_alias(name), Alias(model.name, name, None, before, protected=False)


def _checked(model: Model, name: str, expect: str | None, *, moves_to: str | None) -> str | None:
    """The version that the alias points to now, if it may be changed."""
    number = model.aliases.get(name)
    now = None if number is None else f"v{number}"
    ref = f"{model.name}@{name}"
    if expect is not None and expect != (now or NOTHING):
        raise ConflictError(
            f"{ref} {f'points to {now}' if now else 'does not exist'}, expected {expect}",
            hint="it has moved; to list all aliases:  ckpt alias",
        )
    if expect is None and moves_to != now:
        expect_movable(model, name)
    return now


def _expect_holds(condition: str, version: Version, index: Index, name: str) -> None:
    """Refuse to move an alias to a version that does not meet a condition."""
    parsed = parse_condition(condition, option="--if")
    model = index.model(version.model)
    try:
        expect_fields(parsed, newest_versions(model), index, option="--if")
    except NoAliasError as error:
        if name in model.aliases or error.alias != name:
            raise
        hint = f"to create it:  ckpt alias {name} {version.ref} --expect {NOTHING}"
        raise UsageError(str(error), hint=hint) from error
    version = newest(index, version)
    if not parsed.holds(version, index):
        raise ConditionError(
            f"{version.ref} does not meet {condition!r}: {values_text(parsed, version, index)}",
            hint="the alias was not moved",
        )

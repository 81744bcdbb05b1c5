"""Aliases: names such as `mnist-cnn@prod` that point to a version and can move.

They are checked and changed under the index's lock. A protected alias moves only if the caller
names the version that it points to.
"""

from dataclasses import dataclass

from ckpt.errors import ConflictError, RefError, UsageError
from ckpt.refs import expect_alias, is_version
from ckpt.registry.index import Model
from ckpt.registry.registry import Registry

NOTHING = "none"  # the expected version of an alias that does not exist yet


@dataclass(frozen=True, slots=True)
class Alias:
    """An alias after a change.

    Attributes:
        version: ``v2``; None if it was deleted.
        before: The version that it pointed to before, if any.
        protected: Whether it moves only with the expected version.
    """

    model: str
    name: str
    version: str | None
    before: str | None
    protected: bool

    @property
    def ref(self) -> str:
        """``mnist-cnn@prod``."""
        return f"{self.model}@{self.name}"


def aliases(*, registry: Registry | None = None) -> list[Alias]:
    """All aliases, by model and name."""
    models = (registry or Registry()).index().models
    return [
        Alias(model.name, name, f"v{number}", f"v{number}", name in model.protected)
        for _, model in sorted(models.items())
        for name, number in sorted(model.aliases.items())
    ]


def alias(
    name: str,
    ref: str | None = None,
    *,
    expect: str | None = None,
    protect: bool | None = None,
    delete: bool = False,
    registry: Registry | None = None,
) -> Alias:
    """Point the alias `name` to the version that `ref` names, or delete it.

    Args:
        name: New or known, ``prod`` or ``mnist-cnn@prod``.
        ref: E.g. ``mnist-cnn:v3``, or ``v3`` of the model in `name`; None does not move it, to
            protect or delete it.
        expect: The version that it must point to now, ``v2`` or ``none``; None for any.
        protect: Whether it is protected from now on; None does not change that.
        delete: Delete the alias; its version stays.
        registry: The registry; None finds it as the command line does.

    Raises:
        ConflictError: It points to another version, or it is protected and `expect` is None.
        RefError: There is no such version or alias.
    """
    registry = registry or Registry()
    if expect not in (None, NOTHING) and not is_version(str(expect)):
        raise UsageError(f"--expect is {expect!r}, expected a version such as v2, or {NOTHING}")
    owner, _, short = name.rpartition("@")
    if delete:
        if ref is not None or protect is not None:
            raise UsageError("-d takes only a name and --expect")
        return _deleted(owner or None, short, registry, expect)
    if ref is None and protect is None:
        raise UsageError(f"no version given: ckpt alias {name} REF", hint="ckpt ls  lists versions")
    at = ref or (name if owner else f"{registry.index().model(None).name}@{short}")
    return _pointed(owner, short, at, registry, expect, protect)


def _pointed(
    owner: str, name: str, ref: str, registry: Registry, expect: str | None, protect: bool | None
) -> Alias:
    expect_alias(name)
    version = registry.version(f"{owner}:{ref}" if owner and is_version(ref) else ref)
    if owner and version.model != owner:
        raise UsageError(
            f"{owner}@{name} cannot point to {version.ref}, a version of another model"
        )
    seen: list[str | None] = []

    def moved(model: Model) -> Model:
        seen.append(_checked(model, name, expect, moves_to=version.label))
        return model.with_alias(name, version.number, protect=protect)

    what = f"alias {version.model}@{name} {version.label}"
    model = registry.change(version.model, moved, what)
    return Alias(model.name, name, version.label, seen[-1], name in model.protected)


def _deleted(model: str | None, name: str, registry: Registry, expect: str | None) -> Alias:
    owner = registry.index().model(model)
    seen: list[str | None] = []

    def deleted(found: Model) -> Model:
        if name not in found.aliases:
            known = ", ".join(f"{found.name}@{alias}" for alias in sorted(found.aliases))
            raise RefError(f"{found.name} has no alias {name!r}", hint=known or "it has none")
        seen.append(_checked(found, name, expect, moves_to=None))
        return found.without_alias(name)

    registry.change(owner.name, deleted, f"alias -d {owner.name}@{name}")
    return Alias(owner.name, name, None, seen[-1], protected=False)


def _checked(model: Model, name: str, expect: str | None, *, moves_to: str | None) -> str | None:
    """The version that the alias points to now, if it may be changed."""
    number = model.aliases.get(name)
    now = None if number is None else f"v{number}"
    ref = f"{model.name}@{name}"
    if expect is not None and expect != (now or NOTHING):
        raise ConflictError(
            f"{ref} {f'points to {now}' if now else 'does not exist'}, expected {expect}",
            hint="it has moved;  ckpt alias  lists all aliases",
        )
    if expect is None and name in model.protected and moves_to != now:
        raise ConflictError(
            f"{ref} is protected, and points to {now}",
            hint=f"--expect {now}  moves it anyway",
        )
    return now

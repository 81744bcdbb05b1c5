"""The changes of one write to the index, as values that can be undone.

Law: undoing the changes between two indexes gives the models of the first one, except that a
version that was added becomes a removed one: its number is not reused.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ckpt.errors import ConflictError
from ckpt.registry.index import Index, Model
from ckpt.registry.version import number_of

Value = str | bool | tuple[str, ...] | None
THERE, REMOVED = "there", "removed"


@dataclass(frozen=True, slots=True)
class Change:
    """One changed version, alias or tag.

    Attributes:
        model: Its model.
        kind: ``version``, ``alias``, ``protected`` or ``tag``.
        name: ``v3``, or the alias or tag.
        before: ``there`` or ``removed`` for a version, ``v2`` for an alias, the versions of a
            tag, whether an alias is protected; None if it did not exist.
        after: Likewise.
    """

    model: str
    kind: str
    name: str
    before: Value
    after: Value

    @property
    def is_final(self) -> bool:
        """Whether gc has deleted a version, which cannot be restored."""
        return self.kind == "version" and self.after is None


def changes(before: Index, after: Index) -> list[Change]:
    """The differences between two indexes."""
    found = []
    for name in sorted(after.models):
        if after.models[name] is before.models.get(name):
            continue
        old = _state(before.models.get(name) or Model(name=name))
        new = _state(after.models[name])
        found += [
            Change(name, kind, key, old.get((kind, key)), new.get((kind, key)))
            for kind, key in sorted({**old, **new})
            if old.get((kind, key)) != new.get((kind, key))
        ]
    return found


def undone(index: Index, done: Iterable[Change], *, at: str) -> Index:
    """The index without these changes; a version that they added is removed `at` a time.

    Raises:
        ConflictError: Something has changed since, or was deleted by gc, or an alias or a tag
            would be on a removed version.
    """
    done = list(done)
    if gone := [f"{change.model}:{change.name}" for change in done if change.is_final]:
        raise ConflictError(f"{', '.join(gone)}: deleted by gc, cannot be restored")
    for change in done:
        now = _state(index.model(change.model)).get((change.kind, change.name))
        if now != change.after:
            if change.kind == "version" and now is None:
                raise ConflictError(f"{change.model}:{change.name} was deleted by gc")
            raise ConflictError(
                f"{change.model}: {change.kind} {change.name} has changed since: it is "
                f"{value_text(now)}, expected {value_text(change.after)}",
                hint="to list the changes:  ckpt undo --list",
            )
    # Versions first: an alias may point to a restored one. Deleted values are restored last.
    for change in sorted(done, key=lambda change: (change.kind != "version", change.after is None)):
        index = index.with_model(_restored(index.model(change.model), change, at))
    return index


def value_text(value: Value) -> str:
    """A value in words."""
    match value:
        case None:
            return "absent"
        case "there":
            return "present"
        case bool():
            return "protected" if value else "not protected"
        case tuple():
            return ", ".join(value)
    return value


def _state(model: Model) -> dict[tuple[str, str], Value]:
    """The versions, aliases and tags of a model, by kind and name."""
    return dict(_pairs(model))


def _pairs(model: Model) -> Iterator[tuple[tuple[str, str], Value]]:
    for number in model.versions:
        yield ("version", f"v{number}"), THERE
    for number in model.removed:
        yield ("version", f"v{number}"), REMOVED
    for name, number in model.aliases.items():
        yield ("alias", name), f"v{number}"
        if name in model.protected:
            yield ("protected", name), True
    for name, numbers in model.tags.items():
        yield ("tag", name), tuple(f"v{number}" for number in numbers)


def _expect_there(model: Model, change: Change) -> None:
    """Refuse an alias or a tag of versions that were removed since."""
    labels = change.before if isinstance(change.before, tuple) else (change.before,)
    for label in labels if change.kind in ("alias", "tag") else ():
        if isinstance(label, str) and number_of(label) not in model.versions:
            raise ConflictError(
                f"{change.model}: {change.kind} {change.name} was on {label}, which was removed",
                hint=f"to bring it back first:  ckpt restore {change.model}:{label}",
            )


def _restored(model: Model, change: Change, at: str) -> Model:
    _expect_there(model, change)
    match change.kind, change.before:
        case "version", before:
            number = number_of(change.name)
            return model.restored(number) if before == THERE else model.without(number, at=at)
        case "alias", str(label):
            return model.with_alias(change.name, number_of(label))
        case "alias", _:
            return model.without_alias(change.name)
        case "protected", before if change.name in model.aliases:
            number = model.aliases[change.name]
            return model.with_alias(change.name, number, protect=bool(before))
        case "tag", before:
            labels = before if isinstance(before, tuple) else ()
            return model.with_tagged(change.name, tuple(map(number_of, labels)))
    return model

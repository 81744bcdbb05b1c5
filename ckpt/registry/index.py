"""The index: the list of all versions. `registry.json` holds it, one version a line.

Values only: operations return a new index. Fields that this ckpt does not know are kept.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ckpt.errors import ConflictError, NoModelError, RefError
from ckpt.refs import DigestRef, Ref, VersionRef, expect_no_path, is_version, version_ref
from ckpt.registry.events import Event, event_line
from ckpt.registry.version import Version, number_of, version_line

SCHEMA, PACKED = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model: its versions by number, its aliases and tags, and the next free number.

    Attributes:
        aliases: The number of the version that each alias points to.
        protected: Aliases that move only if the caller says from which version.
        tags: The numbers of the versions that have each tag, ascending.
        removed: Removed versions; their numbers are never reused.
        log: What was done to it and said about its versions, oldest first.
    """

    name: str
    next_number: int = 1
    aliases: Mapping[str, int] = field(default_factory=dict)
    protected: frozenset[str] = frozenset()
    tags: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    versions: Mapping[int, Version] = field(default_factory=dict)
    removed: Mapping[int, Version] = field(default_factory=dict)
    log: tuple[Event, ...] = ()
    unknown: Mapping[str, Any] = field(default_factory=dict)

    def every_version(self) -> tuple[Version, ...]:
        """The versions, then the removed ones."""
        return (*self.versions.values(), *self.removed.values())

    def aliases_of(self, version: Version) -> list[str]:
        """The aliases that point to `version`."""
        return sorted(name for name, number in self.aliases.items() if number == version.number)

    def tags_of(self, version: Version) -> list[str]:
        """The tags of `version`."""
        return sorted(name for name, numbers in self.tags.items() if version.number in numbers)

    def with_alias(self, name: str, number: int, *, protect: bool | None = None) -> "Model":
        """This model with the alias `name` pointing to a version; `protect` None keeps that."""
        kept = self.protected if protect is None else self.protected - {name}
        return replace(
            self,
            aliases={**self.aliases, name: number},
            protected=kept | {name} if protect else kept,
        )

    def without_alias(self, name: str) -> "Model":
        """This model without the alias `name`."""
        aliases = {alias: number for alias, number in self.aliases.items() if alias != name}
        return replace(self, aliases=aliases, protected=self.protected - {name})

    def with_tag(self, name: str, number: int, *, present: bool = True) -> "Model":
        """This model with the tag `name` on a version, or without it."""
        others = {*self.tags.get(name, ())} - {number}
        return self.with_tagged(name, tuple(sorted(others | {number} if present else others)))

    def with_tagged(self, name: str, numbers: tuple[int, ...]) -> "Model":
        """This model with the tag `name` on exactly these versions."""
        tags = {tag: tagged for tag, tagged in self.tags.items() if tag != name}
        return replace(self, tags={**tags, name: numbers} if numbers else tags)

    def without(self, number: int, *, at: str) -> "Model":
        """This model with a version removed at a time, and its tags with it.

        Raises:
            ConflictError: An alias points to it.
        """
        for alias, pointed in self.aliases.items():
            if pointed == number:
                raise ConflictError(
                    f"{self.name}:v{number} cannot be removed: {self.name}@{alias} points to it",
                    hint=f"move the alias, or delete it:  ckpt alias -d {self.name}@{alias}",
                )
        versions = dict(self.versions)
        removed = {**self.removed, number: replace(versions.pop(number), removed=at)}
        model = replace(self, versions=versions, removed=removed)
        for tag in self.tags:
            model = model.with_tag(tag, number, present=False)
        return model

    def restored(self, number: int, *, at: str = "") -> "Model":
        """This model with a removed version restored; its line says when, if `at` does."""
        removed = dict(self.removed)
        line = removed.pop(number)
        line = replace(line, removed="", restored=at or line.restored)
        versions = {**self.versions, number: line}
        return replace(self, versions=dict(sorted(versions.items())), removed=removed)

    def forgotten(self, number: int) -> "Model":
        """This model without a removed version; its number stays taken."""
        return replace(self, removed={k: v for k, v in self.removed.items() if k != number})


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """All models. `serial` counts writes; `write_id` distinguishes writes of the same serial.

    `id` is the identity of the registry, which its store has too; empty in old indexes.
    `packed` is for the index of a remote where objects are in packs: an earlier ckpt, which does
    not look there, refuses it.
    """

    serial: int = 0
    write_id: str = ""
    id: str = ""
    packed: bool = False
    models: Mapping[str, Model] = field(default_factory=dict)
    unknown: Mapping[str, Any] = field(default_factory=dict)

    @property
    def present(self) -> Mapping[str, Model]:
        """The models that have versions; others only keep the numbers that they gave out."""
        return {name: model for name, model in self.models.items() if model.versions}

    def every_version(self) -> Iterator[Version]:
        """The versions of all models, removed ones included."""
        for model in self.models.values():
            yield from model.every_version()

    def find(self, ref: str | Ref) -> Version:
        """The version that `ref` names.

        Raises:
            RefError: It names none, or more than one.
        """
        named = version_ref(ref)
        if isinstance(named, DigestRef):
            return self._by_digest(named.prefix)
        if isinstance(ref, str) and named.model not in (None, *self.models):
            expect_no_path(ref)
        return self.version(named)

    def _by_digest(self, prefix: str) -> Version:
        versions = (
            version for model in self.models.values() for version in model.versions.values()
        )
        found = [
            version
            for version in versions
            if any(name.startswith(prefix) for name in (*version.manifests, version.file or ""))
        ]
        if len({version.manifest for version in found}) == 1:  # copies have one manifest
            return found[0]
        names = ", ".join(sorted(version.ref for version in found))
        raise RefError(f"{prefix} names {names or 'no version'}")

    def version(self, ref: VersionRef) -> Version:
        """The version that `ref` names.

        Raises:
            RefError: None, or more than one; or it names a part of one.
        """
        if ref.inside is not None:
            raise RefError(
                f"::{ref.inside} names one state_dict of a version, expected a whole version"
            )
        model = self.model(ref.model)
        if ref.label == "latest":
            if not model.versions:
                raise RefError(f"{model.name} has no versions", hint=_restores(model))
            return model.versions[max(model.versions)]
        number = number_of(ref.label) if is_version(ref.label) else model.aliases.get(ref.label)
        if number is None or number not in model.versions:
            if number in model.removed:
                gone = f"{model.name}:{ref.label}"
                raise RefError(
                    f"{gone} was removed", hint=f"to bring it back:  ckpt restore {gone}"
                )
            known = [*(f"v{n}" for n in sorted(model.versions)[-5:]), *sorted(model.aliases)]
            hint = f"it has {', '.join(known)}" if known else _restores(model)
            raise RefError(f"{model.name} has no {ref.label}", hint=hint)
        return model.versions[number]

    def model(self, name: str | None) -> Model:
        """The model called `name`, or the only one that has versions, or had some.

        Raises:
            RefError: There is none, or more than one.
        """
        if name is None:
            models = [*(self.present or self.models).values()]
            if len(models) == 1:
                return models[0]
            refs = [model.versions[max(model.versions)].ref for model in models if model.versions]
            raise (RefError if refs else NoModelError)(
                f"the registry holds {len(refs)} models",
                hint=f"name one: {', '.join(refs[:5])}"
                if refs
                else "add the first version:  ckpt register FILE  or  ckpt train --register",
            )
        if name not in self.models:
            raise NoModelError(f"no model {name!r}", hint=_did_you_mean(name, [*self.present]))
        return self.models[name]

    def before(self, version: Version) -> Version | None:
        """The version of the same model with the next lower number."""
        versions = self.models[version.model].versions
        number = max((number for number in versions if number < version.number), default=None)
        return None if number is None else versions[number]

    def same_content(self, model: str, content: str) -> Version | None:
        """The version of `model` that holds the same bytes already."""
        versions = self._known(model).versions.values()
        return next((version for version in versions if version.content == content), None)

    def same_tensors(self, model: str, tensors: str) -> Version | None:
        """The latest version of `model` whose state_dict is the same, in any container."""
        versions = list(self._known(model).versions.values())[::-1]
        return next((version for version in versions if version.tensors == tensors), None)

    def next_number(self, model: str) -> int:
        """The number that the next version of `model` gets."""
        return self._known(model).next_number

    def with_version(self, version: Version) -> "Index":
        """This index with one more version, whose number must be the next one."""
        model = self._known(version.model)
        if version.number != model.next_number:
            raise ValueError(f"{version.ref}: the next number is {model.next_number}")
        grown = replace(
            model,
            next_number=version.number + 1,
            versions={**model.versions, version.number: version},
        )
        return self.with_model(grown)

    def with_model(self, model: Model) -> "Index":
        """This index with `model` in place of the one of its name."""
        return replace(self, models={**self.models, model.name: model})

    def _known(self, model: str) -> Model:
        """The model of that name, or an empty one."""
        return self.models.get(model) or Model(name=model)

    def to_text(self) -> str:
        """The document: canonical JSON, laid out with one version a line."""
        models = ",\n".join(_model_text(self.models[name]) for name in sorted(self.models))
        schema = PACKED if self.packed else SCHEMA
        head = {"schema": schema, "serial": self.serial, "write_id": self.write_id}
        own = {"id": self.id} if self.id else {}
        fields = [
            f"{_json(key)}: {_json(value)}"
            for key, value in {**head, **own, **self.unknown}.items()
        ]
        return "{\n" + ",\n".join(fields) + ',\n"models": {\n' + models + "\n}\n}\n"


def _restores(model: Model) -> str | None:
    """What brings the newest removed version of a model back; None if gc has deleted all."""
    if not model.removed:
        return None
    return f"to bring the last one back:  ckpt restore {model.removed[max(model.removed)].ref}"


def _did_you_mean(name: str, names: list[str]) -> str | None:
    from difflib import get_close_matches

    near = get_close_matches(name, names, n=3) or names[:5]
    return f"the registry holds {', '.join(near)}" if near else None


def _model_text(model: Model) -> str:
    tags = {name: [f"v{number}" for number in found] for name, found in model.tags.items()}
    rare = {"protected": sorted(model.protected), "tags": tags}
    head = {
        "next": model.next_number,
        "aliases": {name: f"v{number}" for name, number in model.aliases.items()},
        **{name: value for name, value in rare.items() if value},
        **model.unknown,
    }
    fields = [f"{_json(key)}: {_json(value)}" for key, value in head.items()]
    removed = f', "removed": {{\n{_lines(model.removed)}\n}}' if model.removed else ""
    versions = f'"versions": {{\n{_lines(model.versions)}\n}}'
    events = ",\n".join(f"  {_json(event_line(event))}" for event in model.log)
    log = f', "log": [\n{events}\n]' if events else ""
    return f"{_json(model.name)}: {{{', '.join(fields)}, {versions}{removed}{log}}}"


def _lines(versions: Mapping[int, Version]) -> str:
    return ",\n".join(
        f"  {_json(version.label)}: {_json(version_line(version))}"
        for _, version in sorted(versions.items())
    )


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)

"""The versions of a registered model of MLflow: their weights, metrics, aliases and origin.

Laws: MLflow's version numbers and times are recorded, and ours follow their order; a version that
was imported is not fetched again. No code of an artifact is run.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from ckpt.errors import FormatError, RefError, UsageError, excerpt
from ckpt.io.files import Told
from ckpt.io.who import MOST_CHARACTERS
from ckpt.ops.import_.adding import Adding, Read, of_import, steps
from ckpt.ops.import_.imported import Did, Found, Imported, Item, is_checkpoint
from ckpt.ops.import_.tracking import RefusedError, Tracking
from ckpt.ops.tag import tag
from ckpt.refs import expect_new_name, is_alias, is_name
from ckpt.registry.later_words import MOST_CHARACTERS as MOST_OF_A_NOTE
from ckpt.registry.later_words import add_words
from ckpt.registry.registry import now

PREFIX = "mlflow:models/"
_OURS = ("data/model.pth", "state_dict.pth")  # where `mlflow.pytorch` writes weights
_NAMED = 5  # files in a message


def model_name_of(name: str) -> str:
    """The name that a registered model gets here.

    Raises:
        UsageError: It needs another one.
    """
    try:
        return expect_new_name(name)
    except UsageError as error:
        raise UsageError(str(error), hint="--name MODEL  gives it another one here") from error


def import_mlflow(
    name: str, source: str, tracking: str | None, adding: Adding, told: Told
) -> Imported:
    """Import the versions of a registered model.

    Args:
        name: The registered model.
        source: As given.
        tracking: The tracking URI; None takes that of the environment.
        adding: The import.
        told: Called with the bytes done and the bytes in all, of each version.

    Raises:
        RefError: There is no such store or model, or it has no versions.
        RemoteError: MLflow refuses.
    """
    with Tracking(tracking) as store:
        known = _known(adding, name)
        listed = store.versions(name, [*known])
        versions = [Listed(model=name, store=store.name, **each) for each in listed["versions"]]
        versions.sort(key=lambda each: each.number)
        if not versions:
            raise RefError(f"{store.name}: registered model {name!r} has no versions")
        items: dict[int, Item] = {}
        for each in versions:
            items[each.number] = known.get(each.key) or _imported(each, store, adding, told)
    remarks = [*_remarks(versions, items), *_without_version(listed["aliases"], items)]
    if adding.dry_run and any(item.did == "new" for item in items.values()):
        remarks.append("nothing was downloaded; versions of the same bytes become one")
    aliases = [
        (alias, label)
        for alias, number in sorted(listed["aliases"].items())
        if (label := _pointable(items.get(number))) and is_alias(alias)
    ]
    return Imported(
        source,
        adding.model,
        tuple(items.values()),
        adding.point(aliases, source),
        tuple(remarks),
        dry_run=adding.dry_run,
        created_registry=adding.created_registry,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A version in MLflow, as `mlflow_child` lists it.

    Attributes:
        model: The registered model.
        store: The tracking URI, without secrets.
        number: MLflow's number.
        made: When it was registered, in milliseconds since 1970.
    """

    model: str
    store: str
    number: int
    made: int
    status: str
    stage: str
    description: str
    tags: Mapping[str, str]
    run: str
    author: str
    metrics: Mapping[str, str]
    params: Mapping[str, str]

    @property
    def key(self) -> tuple[int, int]:
        """What tells it from all others of its model."""
        return self.number, self.made // 1000

    @property
    def name(self) -> str:
        """What people see."""
        return f"version {self.number}"

    @property
    def origin(self) -> str:
        """The beginning of the notes about it."""
        return f"{_origin(self.model, self.number)} of {self.created}"

    @property
    def created(self) -> str:
        """When it was registered, UTC, ISO 8601 to the second."""
        return _time(self.made // 1000)

    @property
    def finite(self) -> dict[str, float]:
        """Its metrics, but those that are not finite."""
        values = {key: float(value) for key, value in self.metrics.items()}
        return {key: value for key, value in values.items() if math.isfinite(value)}

    @property
    def labels(self) -> dict[str, str]:
        """Its tags by what they are called here: ``quality-good``, or ``reviewed`` if true."""
        stage = {self.stage: self.stage} if self.stage != "None" else {}
        own = {key: it for key, it in self.tags.items() if not key.startswith("mlflow.")}
        plain = ("", "true", "True")
        return {**stage, **{key if it in plain else f"{key}-{it}": key for key, it in own.items()}}

    def found(self, path: Path, file: str, at: str) -> Found:
        """It as a checkpoint that may become a version; its file is at `path` now."""
        source = {
            "mlflow": self.store,
            "model": self.model,
            "version": self.number,
            **({"run": self.run} if self.run else {}),
            "file": file,
            **({"tags": dict(self.tags)} if self.tags else {}),
        }
        author = " ".join(self.author.split())[:MOST_CHARACTERS]
        return Found(
            self.name,
            path,
            self.created,
            {
                **of_import(source, at),
                **({"params": dict(self.params)} if self.params else {}),
                **({"by": {"author": author, "host": ""}} if author else {}),
            },
            f"import {_origin(self.model, self.number)}",
            message=self.description,
            metrics=self.finite,
            tags=tuple(filter(is_name, self.labels)),
        )


def _origin(model: str, number: int) -> str:
    return f"{PREFIX}{model} version {number}"


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _known(adding: Adding, name: str) -> dict[tuple[int, int], Item]:
    """What was imported before, by number and time there."""
    model, found = adding.known, dict[tuple[int, int], Item]()
    made = re.compile(re.escape(f"import {PREFIX}{name} version ") + r"([0-9]{1,18})( .*)?")
    for version in model.every_version():
        if its := made.fullmatch(version.made_by):
            did: Did = "removed" if version.number in model.removed else "known"
            key = int(its[1]), _seconds(version.created)
            found[key] = Item(f"version {key[0]}", did, version.created, version.label)
    noted = re.compile(re.escape(f"{PREFIX}{name} version ") + r"([0-9]{1,18}) of (\S+): .*", re.S)
    labels = {it: each.label for each in model.every_version() for it in each.manifests}
    for event in model.log:
        its = noted.fullmatch(event.text) if event.did == "note" else None
        if its and event.manifest in labels:
            key = int(its[1]), _seconds(its[2])
            found[key] = Item(f"version {key[0]}", "known", its[2], labels[event.manifest])
    return found


def _seconds(created: str) -> int:
    try:
        return int(datetime.fromisoformat(created).timestamp())
    except ValueError:  # a person's note that looks alike
        return -1


def _imported(version: Listed, store: Tracking, adding: Adding, told: Told) -> Item:
    """What becomes of a version that was not imported before."""
    item = Item(version.name, "left", version.created)
    if version.status != "READY":
        return replace(item, why=f"its status is {version.status}")
    which = {"name": version.model, "number": version.number}
    try:
        file = chosen(store.ask("files", **which))
        if adding.dry_run:
            return replace(item, did="new", version=adding.plan(version.name))
        with TemporaryDirectory(prefix="ckpt-import-") as folder:
            path = Path(store.ask("fetch", **which, path=file, to=folder))
            if not path.resolve().is_relative_to(Path(folder).resolve()):
                return replace(item, why=f"{file} leads out of its folder")
            return _added(version.found(path, file, now()), version, adding, told)
    except (RefusedError, FormatError) as error:
        return replace(item, why=str(error).removeprefix(f"{store.name}: "))


def _added(found: Found, version: Listed, adding: Adding, told: Told) -> Item:
    telling = steps([found.path.stat().st_size], told)
    read = adding.read(found, next(telling))
    item = adding.add(found, read, next(telling)) if isinstance(read, Read) else read
    if item.did in ("same", "known") and item.version:  # another version has these bytes
        ref = f"{adding.model}:{item.version}"
        said = f": {version.description}" if version.description else ""
        text = excerpt(f"{version.origin}: the same bytes{said}", MOST_OF_A_NOTE - 1)
        add_words(adding.registry, ref, text=text, metrics=found.metrics, why=version.origin)
        if found.tags:
            tag(ref, found.tags, registry=adding.registry)
        return replace(item, did="same")
    return item


def chosen(files: Sequence[str]) -> str:
    """The artifact that holds the weights.

    Raises:
        FormatError: None does, or several do.
    """
    own = [file for file in files if file in _OURS]
    for found in (own, [file for file in files if is_checkpoint(file)]):
        if len(found) == 1:
            return found[0]
        if found:
            raise FormatError(f"{len(found)} checkpoints among its artifacts: {_listed(found)}")
    if programs := [file for file in files if file.endswith(".pt2")]:
        raise FormatError(
            f"{programs[0]} is a torch.export archive, which contains a program; log the "
            "state_dict, or the model with serialization_format='pickle'"
        )
    listed = f": {_listed(files)}" if files else ", which are gone"
    raise FormatError(f"no checkpoint among its artifacts{listed}")


def _listed(files: Sequence[str]) -> str:
    more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
    return ", ".join(files[:_NAMED]) + more


def _pointable(item: Item | None) -> str | None:
    return None if item is None or item.did == "removed" else item.version


def _remarks(versions: Sequence[Listed], items: Mapping[int, Item]) -> Iterator[str]:
    """What new versions lack."""
    for version in versions:
        if items[version.number].did not in ("new", "same"):
            continue
        if lost := [f"{k} {v}" for k, v in version.metrics.items() if k not in version.finite]:
            yield f"{version.name}: not metrics here: {', '.join(lost)}"
        if lost := [key for label, key in version.labels.items() if not is_name(label)]:
            yield f"{version.name}: kept in the record, and not tags here: {', '.join(lost)}"


def _without_version(aliases: Mapping[str, int], items: Mapping[int, Item]) -> Iterator[str]:
    for alias, number in sorted(aliases.items()):
        if not is_alias(alias):
            yield f"alias {alias}: not a name for an alias here"
        elif not _pointable(items.get(number)):
            yield f"alias {alias} points to version {number}, which is not here"

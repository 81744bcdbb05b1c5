"""`registry.json` on disk: found like `.git`, parsed whole, changed under a lock.

A change is an operation applied to the current index under the lock, never a document written
back: two processes that each add a version both succeed. An index of a newer schema is refused.
Law: `parse_index(index.to_text()) == index`.
"""

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from ckpt.errors import DiskError, IndexDamageError, IntegrityError, UsageError
from ckpt.io.documents import strict_json
from ckpt.io.documents.typed_json import Count, Form, expect
from ckpt.io.durable import make_folder, name_new, sync_folder
from ckpt.io.files import disk_errors, read_plain, unlinked, write_whole
from ckpt.io.lock import exclusive_lock
from ckpt.io.who import By, who
from ckpt.refs import is_alias, is_name, is_version
from ckpt.registry import damage
from ckpt.registry.events import read_event
from ckpt.registry.history.logged import logged
from ckpt.registry.history.reflog import Entry, Reflog
from ckpt.registry.history.replay import replayed, write_entry
from ckpt.registry.index import PACKED, Index, Model
from ckpt.registry.places import FILE_NAME, holds_versions
from ckpt.registry.version import Version, number_of, read_version

MOST_BYTES = 1 << 28  # 10,000 versions take 7 MB
_ID = re.compile("[0-9a-f]{32}")


class IndexFile:
    """The index of the registry in `folder`; it need not exist yet.

    Args:
        folder: The folder of `registry.json`.
        store: Where its lock, its reflog and the store's identity are; None for `.ckpt` in it.
    """

    def __init__(self, folder: Path, store: Path | None = None) -> None:
        self.path = folder / FILE_NAME
        self._store = store or folder / ".ckpt"
        self._lock = self._store / "lock"
        self.reflog = Reflog(self._store / "reflog")
        self._parsed: tuple[bytes | None, Index] = None, Index()

    def read(self) -> Index:
        """The current index; an empty one if there is no registry yet.

        Read from the disk each time, but parsed once as long as its bytes are the same: with
        10,000 versions parsing takes 80 ms, and a command looks up several refs.

        Raises:
            IndexDamageError: The document is damaged or of a newer schema; or it is missing
                beside stored versions: `create` comes before the first of them, so it was lost.
            IntegrityError: It is a link, a pipe or a device, or larger than `MOST_BYTES`.
            DiskError: The system cannot read it.
        """
        try:
            document = read_plain(self.path, most=MOST_BYTES)
        except FileNotFoundError:
            # Checked in this order, since another process may create it right now.
            if holds_versions(self.path.parent) and not self.path.exists():
                raise damage.missing(str(self.path)) from None
            return self.read() if self.path.exists() else Index()
        except OSError as error:
            raise DiskError(f"{self.path}: {error.strerror}") from error
        if document != self._parsed[0]:
            self._parsed = document, read_index(document, name=str(self.path))
        return self._parsed[1]

    def create(self, identity: str = "") -> None:
        """Write an index without versions, unless another process has been faster.

        Args:
            identity: The identity of the store, if it has none yet; empty for a new one.
        """
        try:
            with write_whole(self.path, shared=True) as out:
                out.write(Index(id=self._identity(identity)).to_text().encode("utf-8"))
        except UsageError:
            if not self.path.exists():
                raise

    def store_id(self) -> str:
        """The identity of the store; empty if an earlier ckpt made it, or git only the index.

        Raises:
            IntegrityError: Its file holds something else.
        """
        path = unlinked(self._store) / "id"
        try:
            found = read_plain(path, most=1000).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise DiskError(f"{path}: {error.strerror}") from error
        if not _ID.fullmatch(found):
            raise IntegrityError(f"{path}: not an id of a registry", hint="remove this file")
        return found

    def _identity(self, wanted: str) -> str:
        """The identity of the store, which gets the wanted or a new one if it has none."""
        if not (found := self.store_id()):
            wanted = wanted or os.urandom(16).hex()
            make_folder(self._store)
            # Another process may be faster.
            with suppress(UsageError), write_whole(self._store / "id", shared=True) as out:
                out.write(f"{wanted}\n".encode())
            found = self.store_id()
        return found

    def keep_damaged(self) -> Path | None:
        """Give a damaged document a second name, which it keeps; None if there is no document."""
        for number in count(1):
            ending = ".damaged" if number == 1 else f".damaged.{number}"
            kept = self.path.with_name(FILE_NAME + ending)
            try:
                name_new(self.path, kept)
            except FileExistsError:
                continue
            except FileNotFoundError:
                break
            return kept
        return None

    def commit(
        self,
        operation: Callable[[Index], Index],
        what: str | Callable[[], str],
        *,
        undoes: Callable[[], str | None] = lambda: None,
        read: Callable[[], Index] | None = None,
        message: str = "",
        by: By | None = None,
        elsewhere: bool = False,
    ) -> Index:
        """Apply `operation` to the index under the lock and make the result durable.

        An operation that returns the index it was given writes nothing; the current index is made
        durable then.

        Args:
            operation: Returns a new index for the current one. It looks up refs in that one:
                what was looked up before the lock may have changed since.
            what: What it did, for the reflog; asked for after it.
            undoes: The `write_id` of the write that it undid; asked for after it.
            read: Reads the index in place of `IndexFile.read`, if that is damaged.
            message: Why, for the shared history.
            by: Who writes; None finds it out.
            elsewhere: Whether it only takes over changes that were made elsewhere, with their
                events; no undo reverts them.

        Raises:
            ConflictError: Another process holds the lock for too long; see `ckpt.io.lock`.
            UsageError: No reader would accept the new index; nothing is written.
        """
        if read is None:
            self.read()  # a damaged index is refused before git is asked
        if by is None and not elsewhere:
            by = who()
        with exclusive_lock(self._lock):
            before = (read or self.read)()
            after = operation(before)
            if after is before:
                self.sync()
                return after
            what = what if isinstance(what, str) else what()
            undone = undoes()
            text = ": ".join(filter(None, [what if undone else "", message]))
            if by is not None:
                after = logged(before, after, by=by, text=text, now=datetime.now(UTC))
            after = self._stamped(before, after)
            self._expect_readable(after, before if read is None else Index())
            self.reflog.append(*self._entries(before, after, what, undone, elsewhere))
            with write_whole(self.path, replace=True, shared=True) as out:
                out.write(after.to_text().encode("utf-8"))
            return after

    def _stamped(self, before: Index, after: Index) -> Index:
        """The index as the write after `before`."""
        identity = self._identity(after.id)  # a store without one gets the index's
        return replace(
            after,
            serial=before.serial + 1,
            write_id=os.urandom(8).hex(),
            id=after.id or identity,
        )

    def _expect_readable(self, index: Index, known: Index) -> None:
        """Read what is new in an index as its readers will; they have accepted the `known` one."""
        models = {
            name: _new_lines(model, known.models.get(name, Model(name=name)))
            for name, model in index.models.items()
            if model is not known.models.get(name)
        }
        try:
            parse_index(replace(index, models=models).to_text(), name=str(self.path))
        except (TypeError, ValueError, IndexDamageError) as error:
            raise UsageError(
                f"{self.path}: not changed, since no command could read it then: "
                f"{error.__cause__ or error}"
            ) from error

    def sync(self) -> None:
        """Make the current index durable.

        The process that wrote it may have been killed before its sync; a command that reports
        its work as done already must not report what a power loss could undo.
        """
        with disk_errors(self.path.parent):
            sync_folder(self.path.parent)

    def _entries(
        self, before: Index, after: Index, what: str, undoes: str | None, elsewhere: bool
    ) -> list[Entry]:
        """The entry of a write, after an entry of the changes made elsewhere, if there are any."""
        time = datetime.now(UTC).isoformat(timespec="seconds")
        entry = write_entry(before, after, what, time=time, undoes=undoes, elsewhere=elsewhere)
        if not before.models or self.reflog.ends_with(before.write_id):
            return [entry]
        known = self.reflog.entries()
        if any(earlier.write_id == before.write_id for earlier in known):
            return [entry]
        last = replayed(known)
        changed = write_entry(
            last, before, "elsewhere", time=time, parent=last.write_id, elsewhere=True
        )
        return [changed, entry]


def _new_lines(model: Model, known: Model) -> Model:
    """The model without versions that `known` has, but for those that its other fields concern."""
    old = {version.number: version for version in known.every_version()}
    keep = {number for numbers in model.tags.values() for number in numbers}
    keep |= {*model.aliases.values()} | (model.versions.keys() & model.removed.keys())
    keep.add(max((*model.versions, *model.removed), default=0))

    def new(versions: Mapping[int, Version]) -> dict[int, Version]:
        return {
            number: version
            for number, version in versions.items()
            if number in keep or version is not old.get(number)
        }

    return replace(model, versions=new(model.versions), removed=new(model.removed))


def read_index(document: bytes, *, name: str) -> Index:
    """Read the document from the bytes of a file.

    Raises:
        IndexDamageError: It is damaged, or of a newer schema.
    """
    try:
        text = document.decode("utf-8")
    except UnicodeDecodeError as error:
        raise damage.damaged(name, document.decode("utf-8", "replace"), error) from error
    return parse_index(text, name=name)


def parse_index(text: str, *, name: str) -> Index:
    """Read the document.

    Raises:
        IndexDamageError: It is damaged, or of a newer schema.
    """
    try:
        document = strict_json.parse(text)
        expect(document, _Schema, name="")
        if document["schema"] <= PACKED:
            expect(document, _Document, name="")
            return _index(document)
    except ValueError as error:
        raise damage.damaged(name, text, error) from error
    raise damage.newer(name, document["schema"], PACKED)


_DIFFERENT = Form("different items", lambda items: len({*items}) == len(items))
_NOT_EMPTY = Form("at least one item", bool)
_Positive = Annotated[int, Form("a positive integer", lambda number: number > 0)]
_Name = Annotated[str, Form("a name", is_name)]
_Alias = Annotated[str, Form("an alias", is_alias)]
_Id = Annotated[str, Form("32 hex digits", lambda text: bool(_ID.fullmatch(text)))]
_Label = Annotated[str, Form("a version like v3", is_version)]


class _Schema(TypedDict):
    schema: _Positive


class _Model(TypedDict):
    next: _Positive
    aliases: dict[_Alias, _Label]
    protected: NotRequired[Annotated[list[_Alias], _DIFFERENT]]
    tags: NotRequired[dict[_Name, Annotated[list[_Label], _DIFFERENT, _NOT_EMPTY]]]
    versions: dict[_Label, Any]  # `read_version` checks them
    removed: NotRequired[dict[_Label, Any]]
    log: NotRequired[list[Any]]  # `read_event` checks them


class _Document(_Schema):
    serial: Count
    write_id: str
    id: NotRequired[_Id]
    models: dict[_Name, _Model]


def _index(document: dict[str, Any]) -> Index:
    return Index(
        packed=document.pop("schema") == PACKED,
        serial=document.pop("serial"),
        write_id=document.pop("write_id"),
        id=document.pop("id", ""),
        models={name: _model(name, fields) for name, fields in document.pop("models").items()},
        unknown=document,
    )


def _model(name: str, fields: dict[str, Any]) -> Model:
    tags = fields.pop("tags", {})
    model = Model(
        name=name,
        next_number=fields.pop("next"),
        aliases={alias: number_of(label) for alias, label in fields.pop("aliases").items()},
        protected=frozenset(fields.pop("protected", ())),
        tags={tag: tuple(sorted(map(number_of, labels))) for tag, labels in tags.items()},
        versions=_versions(name, "versions", fields),
        removed=_versions(name, "removed", fields),
        log=tuple(
            read_event(line, name=f"models.{name}.log[{place}]")
            for place, line in enumerate(fields.pop("log", ()))
        ),
        unknown=fields,
    )
    _expect_consistent(model)
    return model


def _versions(model: str, group: str, fields: dict[str, Any]) -> dict[int, Version]:
    return {
        number_of(label): read_version(
            model, number_of(label), line, name=f"models.{model}.{group}.{label}"
        )
        for label, line in fields.pop(group, {}).items()
    }


def _expect_consistent(model: Model) -> None:
    name, present = model.name, set(model.versions)
    if present & set(model.removed):
        raise ValueError(f"{name}: a version is both present and removed")
    if any(number >= model.next_number for number in (*model.versions, *model.removed)):
        raise ValueError(f"{name}: a version's number is not below next, {model.next_number}")
    if not set(model.aliases.values()) <= present:
        raise ValueError(f"{name}: an alias points to a missing version")
    if not {number for tagged in model.tags.values() for number in tagged} <= present:
        raise ValueError(f"{name}: a tag is on a missing version")
    if not model.protected <= set(model.aliases):
        raise ValueError(f"{name}: a protected alias does not exist")

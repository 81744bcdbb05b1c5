"""One version of a model, and its line in `registry.json`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NotRequired, TypedDict, cast

from ckpt.errors import excerpt
from ckpt.io.documents.typed_json import Count, Digest, Time, TimeOrEmpty, expect
from ckpt.printed import Printed
from ckpt.refs import is_version

_RARE = ("tensors", "removed", "restored", "renumbered", "also")  # omitted if empty


class VersionLine(TypedDict):
    """The fields of a version in the document; `Version` describes them."""

    manifest: Digest
    content: Digest
    file: Digest | None
    size: Count
    keys: Count
    new_bytes: Count
    made_by: str
    created: TimeOrEmpty
    metrics: NotRequired[dict[str, float]]
    message: NotRequired[str]
    tensors: NotRequired[str]
    removed: NotRequired[Time]
    restored: NotRequired[Time]
    renumbered: NotRequired[str]
    also: NotRequired[list[Digest]]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Version(Printed):
    """One version, immutable.

    Attributes:
        model: Name of its model.
        number: 3 for `v3`.
        manifest: Digest of its manifest.
        content: The manifest's `content_digest`; equal for equal bytes.
        file: Digest of the file it was registered from; None for a rename or a large file.
        size: Bytes of its file.
        keys: Number of keys.
        new_bytes: Bytes that it added to the store, with its manifest.
        made_by: E.g. ``train classic, 14 ep`` or ``rename of v1``.
        created: UTC, ISO 8601 to the second; empty if unknown.
        metrics: E.g. ``{"accuracy": 0.9921}``.
        message: The message given by the user.
        tensors: The manifest's `tensors_digest`; empty if an earlier ckpt wrote the line.
        removed: When it was removed, UTC, ISO 8601 to the second; empty if it is not.
        restored: When `ckpt restore` last brought it back, likewise.
        renumbered: Its label before a merge gave it this number, ``v3``.
        also: Digests of other manifests of the same bytes, found by a merge.
    """

    VIEW: ClassVar = "ckpt.show.ls:version_text"

    model: str
    number: int
    manifest: str
    content: str
    file: str | None
    size: int
    keys: int
    new_bytes: int
    made_by: str
    created: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    message: str = ""
    tensors: str = ""
    removed: str = ""
    restored: str = ""
    renumbered: str = ""
    also: tuple[str, ...] = ()
    unknown: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.ref

    @property
    def label(self) -> str:
        """``v3``."""
        return f"v{self.number}"

    @property
    def ref(self) -> str:
        """``mnist-cnn:v3``."""
        return f"{self.model}:{self.label}"

    @property
    def manifests(self) -> tuple[str, ...]:
        """All manifests by which another version may name this one as its parent."""
        return (self.manifest, *self.also)


def version_line(version: Version) -> dict[str, Any]:
    """The fields of the version's line in the document."""
    fields = {name: getattr(version, name) for name in VersionLine.__annotations__}
    shown = {name: value for name, value in fields.items() if value or name not in _RARE}
    return {**shown, **version.unknown}


def number_of(label: str) -> int:
    """3 for ``v3``.

    Raises:
        ValueError: It is not a version.
    """
    if not is_version(label):
        raise ValueError(f"{excerpt(str(label))!r} is not a version")
    return int(label[1:])


def read_version(model: str, number: int, line: object, *, name: str = "") -> Version:
    """The version of a line of the document.

    Args:
        model: Its model.
        number: Its number.
        line: The line, as parsed.
        name: Its name in messages.

    Raises:
        ValueError: A field is missing or has another type.
    """
    expect(line, VersionLine, name=name)
    fields = dict(cast("dict[str, Any]", line))
    known = {name: fields.pop(name) for name in VersionLine.__annotations__ if name in fields}
    also = tuple(known.pop("also", ()))
    return Version(model=model, number=number, unknown=fields, also=also, **known)


def parent_record(parent: Version, tensors: str) -> dict[str, Any]:
    """How the record of a version names its parent.

    Args:
        parent: The parent.
        tensors: The `tensors_digest` of the new version.
    """
    same = {"same_tensors": True} if parent.tensors == tensors else {}
    return {"version": parent.ref, "manifest": parent.manifest, **same}

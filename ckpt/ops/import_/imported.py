"""What an import finds, and what became of each file or version."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from ckpt.printed import Printed
from ckpt.refs import SUFFIXES

# `same`: the bytes of another one of this import; `skipped`: nothing that a model is made of.
Did = Literal["new", "same", "known", "removed", "skipped", "left"]

_ARCHIVE = re.compile(r"\.(pt|pth|ckpt)\.tar$", re.IGNORECASE)


def is_checkpoint(name: str) -> bool:
    """Whether a file of this name is a checkpoint; ``.pth.tar`` is what PyTorch's examples say."""
    return name.lower().endswith(tuple(SUFFIXES)) or _ARCHIVE.search(name) is not None


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint that may become a version.

    Attributes:
        name: What people call it there: ``run1/epoch_03.pt``, or ``version 3``.
        path: The file or folder.
        created: When it was made, UTC, ISO 8601 to the second.
        record: What the record of its version gets.
        made_by: How it was made, a few words.
        message: The version's message.
        metrics: Its metrics.
        tags: Its tags.
        alias: The alias that is to point to its version; empty for none.
    """

    name: str
    path: Path
    created: str
    record: Mapping[str, Any]
    made_by: str
    message: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    alias: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """What became of one checkpoint, or would become of it.

    Attributes:
        name: What people call it there.
        did: What happened.
        created: When it was made; empty if unknown.
        version: The version that has its bytes, ``v3``; None if there is none.
        why: Why it was skipped or left.
        hint: What to do about it; empty for nothing.
        plain: The objects of unknown classes that the version has as plain values, or lacks.
    """

    name: str
    did: Did
    created: str = ""
    version: str | None = None
    why: str = ""
    hint: str = ""
    plain: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pointed:
    """An alias of the source.

    Attributes:
        name: The alias.
        version: The version that it points to there.
        now: The version that it points to here; None for none.
        did: ``new``, ``known``, or ``kept`` if it was moved or deleted here.
    """

    name: str
    version: str
    now: str | None
    did: Literal["new", "known", "kept"]


@dataclass(frozen=True, slots=True, repr=False)
class Imported(Printed):
    """The result of an import.

    Attributes:
        source: As given.
        model: The model.
        items: The checkpoints, in the order of their versions.
        aliases: The aliases of the source.
        remarks: What the versions lack, a sentence each.
        resolved: The artifact of an OCI registry by its digest; empty for other sources.
        dry_run: Whether nothing was written.
        created_registry: The folder of the registry that was created for it, if one was.
    """

    VIEW: ClassVar = "ckpt.show.import_:imported_text"

    source: str
    model: str
    items: tuple[Item, ...]
    aliases: tuple[Pointed, ...] = ()
    remarks: tuple[str, ...] = ()
    resolved: str = ""
    dry_run: bool = False
    created_registry: Path | None = None

    @property
    def left(self) -> tuple[Item, ...]:
        """The checkpoints that could not be imported."""
        return tuple(item for item in self.items if item.did == "left")

    def number_of(self, *did: Did) -> int:
        """How many checkpoints had this happen to them."""
        return sum(item.did in did for item in self.items)

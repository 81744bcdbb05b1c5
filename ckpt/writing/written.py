"""What a command has written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ckpt.printed import Printed


@dataclass(frozen=True, slots=True, repr=False)
class Written(Printed):
    """A file, or a folder of files, that was written.

    Attributes:
        path: The file or folder.
        size: Its size in bytes.
        left_out: What the new container cannot hold, a few words for each item.
        inside: The state_dict of a training checkpoint, as after ``FILE::``.
        files: The number of files; if more than one, `path` is their folder.
        also_named: Other places of the file where renamed keys were replaced too.
        dropped: The opaque objects of the source that it does not hold.
        unopened: Why `torch.load` with weights_only refuses it; empty if it opens it.
        chosen: The state_dict that was read, as after ``FILE::``.
        tied: Names of tied tensors that are noted, each with the key that is stored.
        url: Where it is, if it is in a bucket; `path` has its name alone then.
        sent: The bytes that were sent there; the bucket had the others.
        sent_why: Why they were all sent, if something is missing here.
        digest: Of the artifact, if it is one in an OCI registry.
        was_there: Whether that had it already, under the same tag.
    """

    VIEW: ClassVar = "ckpt.show.export:written_text"

    path: Path
    size: int
    left_out: tuple[str, ...] = ()
    inside: str | None = None
    files: int = 1
    also_named: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    unopened: tuple[str, ...] = ()
    chosen: str | None = None
    tied: Mapping[str, str] = field(default_factory=dict)
    url: str | None = None
    sent: int | None = None
    sent_why: str = ""
    digest: str = ""
    was_there: bool = False

    @property
    def name(self) -> str:
        """Its path or URL."""
        return self.url or str(self.path)

    @property
    def ref(self) -> str:
        """The ref of the state_dict that was written."""
        return f"{self.name}::{self.inside}" if self.inside else self.name

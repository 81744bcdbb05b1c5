"""A folder elsewhere, and what is known of the files that were opened in it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ckpt.io.sources import OpenSource

_MOST_TEXT = 200  # characters of a foreign text that is recorded


@dataclass(slots=True)
class Opening:
    """How files are opened, and what is noted about them.

    Attributes:
        whole: Whether the weights are needed, so that a large file may be taken whole.
        origin: What servers state about files, by their names, for the record.
        digests: The SHA-256 of files, as their server states it, by name.
    """

    whole: bool
    origin: dict[str, dict[str, str]]
    digests: dict[str, str] = field(default_factory=dict)

    def note(self, name: str, *, etag: str | None = None, sha256: str | None = None) -> None:
        """Record what a server says about a file."""
        if etag is not None and len(etag) <= _MOST_TEXT and etag.isprintable():
            self.origin.setdefault("etags", {})[name] = etag
        if sha256 is not None:
            self.digests[name] = sha256
            self.origin.setdefault("sha256", {})[name] = sha256


class Place(ABC):
    """A folder elsewhere.

    Attributes:
        name: What messages call it; without credentials, and without a slash at its end.
    """

    name: str

    @property
    def base(self) -> str:
        """The folder's own name."""
        return self.name.rpartition("/")[2]

    @abstractmethod
    def opened(self, name: str, opening: Opening) -> OpenSource:
        """The file of this name in it.

        Raises:
            RefError: There is none.
            RemoteError: It cannot be read.
        """

    def files(self) -> Mapping[str, int]:
        """The files in it and below, by relative name, with their sizes; if it can be listed."""
        return {}

    def origin(self) -> dict[str, Any]:
        """What pins it, such as a commit."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """End its connections."""

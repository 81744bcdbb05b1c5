"""Compare side files: by digest, and as text where both sides are small."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from ckpt.io import digest
from ckpt.opened.states import Opened, OpenedDefinition, OpenedFile, OpenedState
from ckpt.side_files import Readable

_MOST_BYTES = 1 << 16  # of a text that is compared line by line
_MOST_LINES = 2000  # difflib needs the square of their number at worst


@dataclass(frozen=True, slots=True)
class FileChange:
    """A side file that differs.

    Attributes:
        name: Its name.
        before: Its size on the first side, in bytes; None if it is missing there.
        after: Likewise on the second side.
        lines: The difference of two small texts, unified, without the heads.
    """

    name: str
    before: int | None
    after: int | None
    lines: tuple[str, ...] = ()


def differing_files(a: Opened, b: Opened) -> tuple[FileChange, ...]:
    """The side files that differ, by name; none unless both sides can have some."""
    if not (_can_have(a) and _can_have(b)):
        return ()
    assert not isinstance(a, OpenedDefinition)
    assert not isinstance(b, OpenedDefinition)
    return tuple(_changes(a, b))


def _can_have(side: Opened) -> bool:
    """A file alone does not say what belongs to it."""
    if isinstance(side, OpenedFile):
        return side.names_folder
    return not isinstance(side, OpenedDefinition)


def _changes(a: OpenedState, b: OpenedState) -> Iterator[FileChange]:
    before, after = _by_name(a), _by_name(b)
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            yield FileChange(name, old.nbytes if old else None, new.nbytes if new else None)
        elif _digest(old) != _digest(new):
            yield FileChange(name, old.nbytes, new.nbytes, _lines(old, new))


def _by_name(side: OpenedState) -> dict[str, Readable]:
    return {file.name: file for file in side.side_files().files}


def _digest(file: Readable) -> str:
    return file.digest or digest.of_chunks(file.chunks())


def _lines(old: Readable, new: Readable) -> tuple[str, ...]:
    before, after = _text(old), _text(new)
    if before is None or after is None:
        return ()
    from difflib import unified_diff

    return tuple(islice(unified_diff(before, after, lineterm=""), 2, None))


def _text(file: Readable) -> list[str] | None:
    """The lines of a small text; None for any other file."""
    if file.nbytes > _MOST_BYTES:
        return None
    try:
        text = b"".join(file.chunks()).decode("utf-8")
    except UnicodeDecodeError:
        return None
    lines = text.splitlines()
    return None if "\0" in text or len(lines) > _MOST_LINES else lines

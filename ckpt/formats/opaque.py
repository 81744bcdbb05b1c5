"""Opaque objects in the pickle of a checkpoint: what they may do, and a file without them."""

from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from sys import stdlib_module_names
from typing import TYPE_CHECKING, Literal

from ckpt.errors import FormatError, PlanError, RefusedGlobalError, UsageError, excerpt
from ckpt.formats import open_checkpoint
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.pickle.globals import DICTS, runs_code, torch_refuses
from ckpt.io.rights import Rights
from ckpt.io.sources import ByteSource, Part
from ckpt.tensors import Layout, Span

if TYPE_CHECKING:
    from ckpt.formats.optimizers import Groups
    from ckpt.formats.torch_state import TorchFile

OpaqueWord = Literal["keep", "drop"]  # what a command that writes does with opaque objects
RUNS_CODE = "runs_code"  # in a version's record: globals that do, each with its offset
_NAMED = 5  # globals in a message


@dataclass(frozen=True, slots=True)
class ForeignGlobal:
    """A global beside those of torch's weights_only.

    Attributes:
        name: E.g. ``omegaconf.dictconfig.DictConfig``.
        offset: Of the first opcode that names it, in the pickle.
        runs_code: Whether unpickling may run code through it.
    """

    name: str
    offset: int
    runs_code: bool


def foreign_globals(checkpoint: Checkpoint) -> tuple[ForeignGlobal, ...]:
    """All globals that torch's weights_only refuses, in the order of the file."""
    return foreign_among(checkpoint.pickled.globals if checkpoint.pickled else {})


def foreign_among(named: Mapping[str, int]) -> tuple[ForeignGlobal, ...]:
    """Those of some globals with their offsets that torch's weights_only refuses."""
    return tuple(
        ForeignGlobal(name, offset, runs_code(name))
        for name, offset in named.items()
        if torch_refuses(name)
    )


def safe_globals(names: Iterable[str]) -> str | None:
    """The line that tells torch to accept some globals; None if it may be told of none.

    Not of functions, nor of Python's own modules, unless they are known to be harmless.
    """
    told = [name for name in names if _may_be_told(name)]
    if "numpy.dtype" in told:
        told.append("*{type(numpy.dtype(kind)) for kind in '?bhilqBHILQefdFDUO'}")
    listed = ", ".join(name.removeprefix("builtins.") for name in told)
    return f"torch.serialization.add_safe_globals([{listed}])" if told else None


def _may_be_told(name: str) -> bool:
    module, *_, last = name.split(".")
    if name in DICTS or name == "collections.deque":  # torch fills only its own containers
        return False
    if not runs_code(name):
        return True
    own = module in stdlib_module_names or not all(map(str.isidentifier, name.split(".")))
    return not own and last[0].isupper()


def unopened(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Why `torch.load` with weights_only refuses the file; empty if it opens it."""
    pickled = checkpoint.pickled
    if pickled is None:
        return ()
    protocol = (f"pickle protocol {pickled.protocol}",) if pickled.protocol > 3 else ()
    return (*(found.name for found in foreign_globals(checkpoint)), *protocol)


def expect_harmless(checkpoint: Checkpoint, opaque: OpaqueWord | None) -> dict[str, dict[str, int]]:
    """Make sure that a file that is handed on runs no code when it is unpickled, or is meant to.

    Returns:
        For a version's record: the globals that run code, with their offsets.

    Raises:
        RefusedGlobalError: It may, and `opaque` does not say what to do.
    """
    harmful = [found for found in foreign_globals(checkpoint) if found.runs_code]
    if not harmful or opaque == "keep":
        return {RUNS_CODE: {found.name: found.offset for found in harmful}} if harmful else {}
    names = ", ".join(
        f"{excerpt(found.name, 100)} at offset {found.offset:,}" for found in harmful[:_NAMED]
    )
    more = f" and {len(harmful) - _NAMED:,} more" if len(harmful) > _NAMED else ""
    raise RefusedGlobalError(
        f"{checkpoint.source.name}: runs code when unpickled: {names}{more}",
        hint="--drop-opaque  writes the file without such objects\n"
        "--keep-opaque  writes them byte for byte, if you trust them",
    )


def without_opaque(checkpoint: Checkpoint, inside: str | None) -> tuple[Checkpoint, Sequence[str]]:
    """The checkpoint as a file that torch's weights_only opens, and what is gone from it.

    Args:
        checkpoint: An opened file.
        inside: As after ``FILE::``.

    Raises:
        UsageError: It has several files.
        FormatError: Its tensors would get other keys.
    """
    if not unopened(checkpoint):
        return checkpoint, ()
    file = torch_file(checkpoint)
    if file is None:
        raise UsageError(
            f"{checkpoint.source.name}: --drop-opaque works on one file",
            hint="-o NEW.safetensors  writes the tensors alone",
        )
    layout, changed = file.plain()
    return _opened_again(checkpoint, layout, inside), changed


def torch_file(checkpoint: Checkpoint) -> "TorchFile | None":
    """The checkpoint, if it is one file of torch; others are told apart without importing more."""
    if checkpoint.pickled is None:
        return None
    from ckpt.formats.torch_state import TorchFile

    return checkpoint if isinstance(checkpoint, TorchFile) else None


def holds_more(checkpoint: Checkpoint) -> bool:
    """Whether it is a file of torch with other things beside the tensors of its state_dict."""
    file = torch_file(checkpoint)
    return file is not None and file.state.holds_more


def kind_of_file(checkpoint: Checkpoint) -> str | None:
    """What a file holds instead of a model, such as ``the state of an optimizer``."""
    if checkpoint.pickled is None or checkpoint.pickled.chosen:
        return None
    from ckpt.formats.pickle.describe import kind_of

    return kind_of({*checkpoint.rest, *(entry.key for entry in checkpoint.entries)})


def without_optimizer(
    checkpoint: Checkpoint, inside: str | None
) -> tuple[Checkpoint, Sequence[str]]:
    """The checkpoint as a file without its optimizers, and their paths.

    Raises:
        UsageError: It has objects that cannot be written again.
    """
    file = torch_file(checkpoint)
    if file is None or not file.state.holders:
        return checkpoint, ()
    layout, changed = file.plain(frozenset(id(node) for _, node in file.state.holders))
    if changed:
        raise UsageError(
            f"{checkpoint.source.name}: cannot be written without its optimizer and with "
            f"{changed[0]}",
            hint="--drop-opaque  leaves that out as well",
        )
    return _opened_again(checkpoint, layout, inside), [path for path, _ in file.state.holders]


def without_tensors(
    checkpoint: Checkpoint,
    inside: str | None,
    keys: Container[str],
    orders: "Mapping[str, Groups]",
) -> Checkpoint:
    """The checkpoint as a file without some keys of its state_dict; all else is kept.

    Args:
        checkpoint: A file of torch.
        inside: As after ``FILE::``.
        keys: Those that are dropped.
        orders: By the path of an optimizer, the numbers that its groups keep.

    Raises:
        PlanError: It has objects that cannot be written again.
    """
    file = torch_file(checkpoint)
    assert file is not None
    layout, changed = file.plain(instead=file.state.without(keys, orders))
    if changed:
        raise PlanError(
            f"{checkpoint.source.name}: tensors cannot be dropped beside {changed[0]}",
            hint="--drop-opaque  leaves that out as well\n"
            "-o NEW.safetensors  writes the tensors alone",
        )
    return _opened_again(checkpoint, layout, inside, dropped=keys)


def _opened_again(
    checkpoint: Checkpoint, layout: Layout, inside: str | None, dropped: Container[str] = ()
) -> Checkpoint:
    plain = open_checkpoint(LaidOut(checkpoint.source, layout), inside=inside)
    expected = [entry.key for entry in checkpoint.entries if entry.key not in dropped]
    if [entry.key for entry in plain.entries] != expected:
        raise FormatError(
            f"{checkpoint.source.name}: its keys would change without these objects",
            hint="-o NEW.safetensors  writes the tensors alone",
        )
    return plain


class LaidOut(ByteSource):
    """The bytes of a layout over another source."""

    def __init__(self, source: ByteSource, layout: Layout) -> None:
        self._source = source
        self._pieces: list[bytes | Span] = []
        for piece in layout:
            if not isinstance(piece, bytes | Span):
                raise FormatError(f"{source.name}: a record without a checksum")
            self._pieces.append(piece)
        sizes = [len(p) if isinstance(p, bytes) else p.nbytes for p in self._pieces]
        self._begins = list(accumulate(sizes, initial=0))
        self.name, self.size = source.name, self._begins[-1]
        self.parts = (Part(source.parts[0].name, 0, self.size),)

    @property
    def rights(self) -> Rights:
        return self._source.rights

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        index, end = bisect_right(self._begins, offset) - 1, offset + nbytes
        while offset < end:
            piece, first = self._pieces[index], offset - self._begins[index]
            length = min(end, self._begins[index + 1]) - offset
            if isinstance(piece, bytes):
                yield piece[first : first + length]
            elif length:
                yield from self._source.stream(piece.offset + first, length)
            offset, index = offset + length, index + 1

"""Tensors of subclasses, such as torchao's or DTensor: refused by name, with their inner tensors.

Law: a file that names such a tensor is never opened. The error has what `show` needs: the plain
tensors of the file, and those that the others are made of.
Source: `torch._tensor._rebuild_from_type_v2` of torch 2.13: it makes a plain tensor of another
class, or a wrapper, whose tensors are attributes.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from ckpt.errors import RefusedGlobalError, excerpt
from ckpt.formats.pickle.find import Contents, Path, dotted
from ckpt.formats.pickle.globals import FROM_TYPE, is_own_subclass
from ckpt.formats.pickle.machine import refused_global
from ckpt.formats.pickle.nodes import Call, Global, Opaque
from ckpt.formats.pickle.reader import ParsedPickle
from ckpt.formats.pickle.tensors import PLAIN, Storages, entries_of
from ckpt.io.sources import ByteSource
from ckpt.tensors import TensorEntry

# How to get a plain tensor, by the beginning of the class.
_WAYS = {
    "torchao.": "load it with torch, and save the result of .dequantize() for each of them",
    "torch.distributed.": "load it with torch, and save the result of .full_tensor() for each of "
    "them, which all ranks must call",
    "torch.nested.": "load it with torch, and save the result of .unbind() for each of them",
}
_OTHERWISE = "save plain tensors of torch, without the class of another package"


class SubclassError(RefusedGlobalError):
    """A file holds tensors of a subclass.

    Attributes:
        classes: The class of each such tensor, by its path.
        entries: All plain tensors, inner ones under the path of what they are in.
        named: Every global of the pickle, with its offset.
        way: How to save plain tensors instead.
        format: Of the file.
        size: Of the file, in bytes.
    """

    classes: Mapping[str, str]
    entries: Sequence[TensorEntry]
    named: Mapping[str, int]
    way: str
    format: str
    size: int


def subclass_of(tensor: Call) -> Opaque | None:
    """The subclass of a tensor; None if it has none."""
    match tensor.function, tensor.arguments:
        case (function, (_, Opaque() as kind, *_)) if function == FROM_TYPE:
            return kind
    return None


def expect_no_subclass(
    contents: Contents,
    read: ParsedPickle,
    storages: Storages,
    source: ByteSource,
    *,
    container: str,
    where: str,
) -> None:
    """Make sure that no tensor is of a subclass.

    Args:
        contents: What the pickle holds.
        read: The pickle.
        storages: Those that it names.
        source: The file.
        container: The name of its format.
        where: Of the pickle, for messages.

    Raises:
        SubclassError: Some are.
        RefusedGlobalError: The pickle names a subclass in another way.
        FormatError: An inner tensor is not well-formed.
    """
    classes = {
        dotted(path): excerpt(kind.name, 100)
        for path, tensor in contents.tensors
        if (kind := subclass_of(tensor))
    }
    if classes:
        error = _refusal(classes, source.name)
        error.classes, error.named = classes, read.named
        error.entries = entries_of(_plain(contents), storages, name=source.name)
        error.format, error.size = container, source.size
        raise error
    for tensor in read.attributed:
        if kind := subclass_of(tensor):
            raise refused_global(kind.name, kind.offset, where)
    for own, offset in read.named.items():
        if is_own_subclass(own):
            raise refused_global(own, offset, where)


def _refusal(classes: Mapping[str, str], name: str) -> SubclassError:
    key, kind = next(iter(classes.items()))
    more = f" (one of {len(classes):,} such tensors)" if len(classes) > 1 else ""
    way = next((way for begin, way in _WAYS.items() if kind.startswith(begin)), _OTHERWISE)
    error = SubclassError(
        f"{name}: {key} is a {kind}, expected a plain tensor{more}",
        hint=f"{way}\nckpt show FILE  shows what they are made of",
    )
    error.way = way
    return error


def _plain(contents: Contents) -> Iterator[tuple[str, Call]]:
    """All plain tensors, with their paths as text."""
    for path, tensor in contents.tensors:
        shown = dotted(tuple(_names(path)))
        match tensor.arguments:
            case _ if not subclass_of(tensor):
                yield shown, tensor
            case (Global() as make, _, tuple() as of, *_) if make.name in PLAIN:
                yield shown, Call(make.name, of)


def _names(path: Path) -> Iterator[object]:
    """A path without the tensors on it, and without numbers of their arguments."""
    for before, part in pairwise((None, *path)):
        if not (isinstance(part, Call) or (isinstance(before, Call) and type(part) is int)):
            yield part

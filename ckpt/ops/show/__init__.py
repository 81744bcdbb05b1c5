"""Show: the contents of one version, file or definition."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ckpt.compare.ties import ties_of
from ckpt.errors import RefError, RefusedGlobalError
from ckpt.formats.opaque import ForeignGlobal, foreign_among, kind_of_file
from ckpt.opened import open_ref
from ckpt.opened.named import WeightsOrClass
from ckpt.opened.states import Opened, OpenedDefinition, OpenedFile, OpenedVersion
from ckpt.printed import Printed
from ckpt.registry.registry import InRegistry, Registry
from ckpt.side_files import Readable
from ckpt.tensors import TensorEntry

if TYPE_CHECKING:
    from ckpt.ops.show.deep import Deep
    from ckpt.registry.events import Event
    from ckpt.registry.version import Version


@dataclass(frozen=True, slots=True, repr=False)
class Shown(Printed):
    """One checkpoint or definition.

    Attributes:
        format: The container's format; None for a definition.
        size: Bytes of the file; None for a definition.
        rest: The non-tensor part.
        written_by: The program that wrote the file, if it says so.
        chosen: The path of the state_dict in the file, if nobody named it: ``state_dict``.
        kind: What a file holds instead of a model: ``the state of an optimizer``.
        ties: Keys that share the bytes of an earlier key, with that key.
        measured: The version whose metrics are known: itself, or one that it was made from.
        record: How the version was made.
        history: What was done with it and said about it since.
        foreign: The globals that torch's weights_only refuses; for a version, those that run code.
        deep: The result of reading everything, if asked for.
        side_files: What belongs to the weights besides them.
        origin: Where a file that is elsewhere comes from, such as its URL and commit.
        subclasses: By path, the classes of tensors that are not plain. `entries` has the tensors
            that they are made of, and no other command opens the file.
        way: How to save plain tensors in place of those.
    """

    VIEW: ClassVar = "ckpt.show.show:shown_text"

    name: str
    format: str | None
    size: int | None
    entries: Sequence[TensorEntry]
    rest: Mapping[str, Any] = field(default_factory=dict)
    written_by: str | None = None
    ties: Mapping[str, str] = field(default_factory=dict)
    version: "Version | None" = None
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    measured: "Version | None" = None
    record: Mapping[str, Any] | None = None
    history: "tuple[Event, ...]" = ()
    foreign: tuple[ForeignGlobal, ...] = ()
    deep: "Deep | None" = None
    side_files: tuple[Readable, ...] = ()
    chosen: str | None = None
    kind: str | None = None
    origin: Mapping[str, Any] | None = None
    subclasses: Mapping[str, str] = field(default_factory=dict)
    way: str | None = None

    def totals(self) -> tuple[Mapping[str, int], int]:
        """Elements by dtype, and bytes stored contiguously; a tied tensor counts once."""
        elements: Counter[str] = Counter()
        nbytes = 0
        for entry in self.entries:
            if entry.key not in self.ties:
                elements[entry.dtype] += entry.numel
                nbytes += entry.nbytes
        return elements, nbytes


def show(
    ref: WeightsOrClass,
    *,
    registry: InRegistry | None = None,
    deep: bool = False,
    arguments: Mapping[str, object] | None = None,
) -> Shown:
    """Describe a ref. Reads only the header of a file, or the manifest of a version.

    Args:
        ref: A version, a file or a definition; or a state_dict, a module or a class.
        registry: Where versions are looked up.
        deep: Read everything, and verify that it is not damaged.
        arguments: The arguments of a definition.

    Raises:
        RefError: It names nothing; or `deep` was asked for a definition.
        FormatError: The file is not a readable checkpoint, or it is damaged.
        IntegrityError: The version is damaged.

    Example:
        >>> ckpt.show("old.pt").entries[0].shape
        (8, 1, 3, 3)
        >>> len(ckpt.show(Net).entries), ckpt.show("net@prod").version.message
        (4, 'first')
    """
    registry = Registry.of(registry)
    try:
        with open_ref(ref, registry, arguments) as opened:
            shown = _shown(opened)
            if not deep:
                return shown
            if isinstance(opened, OpenedDefinition):
                raise RefError(f"{opened.name} is a definition, which has no weights to read")
            from ckpt.ops.show.deep import examine

            return replace(shown, deep=examine(opened))
    except RefusedGlobalError as error:
        if deep:
            raise
        return _subclassed(f"{ref}", error)


def _subclassed(name: str, error: RefusedGlobalError) -> Shown:
    """What tensors of subclasses are made of, though no other command opens their file."""
    from ckpt.formats.subclasses import SubclassError

    if not isinstance(error, SubclassError):
        raise error
    return Shown(
        name,
        error.format,
        error.size,
        error.entries,
        foreign=foreign_among(error.named),
        subclasses=error.classes,
        way=error.way,
    )


def _shown(opened: Opened) -> Shown:
    if isinstance(opened, OpenedDefinition):
        return Shown(opened.name, None, None, opened.entries)
    if isinstance(opened, OpenedFile):
        ties, foreign = ties_of(opened), opened.foreign
        side_files = opened.side_files().files
        file = opened.checkpoint
        size, by = file.source.size, file.written_by
        shown = Shown(opened.name, file.format, size, file.entries, file.rest, by, ties)
        chosen = None if opened.inside or file.pickled is None else file.pickled.chosen
        kind = kind_of_file(file)
        return replace(
            shown,
            foreign=foreign,
            side_files=side_files,
            chosen=chosen or None,
            kind=kind,
            origin=opened.origin,
        )
    return shown_version(opened)


def shown_version(opened: OpenedVersion) -> Shown:
    """What the index and the manifest of a version tell."""
    from ckpt.registry.events import about
    from ckpt.registry.lineage import measured

    manifest, version, registry = opened.manifest, opened.version, opened.registry
    model = registry.index().model(version.model)
    return Shown(
        opened.name,
        manifest.format,
        manifest.skeleton.size,
        manifest.entries,
        manifest.rest,
        ties=ties_of(opened),
        version=version,
        aliases=tuple(model.aliases_of(version)),
        tags=tuple(model.tags_of(version)),
        measured=measured(registry, version, manifest.record),
        record=manifest.record,
        history=about(model.log, version.manifests),
        foreign=opened.foreign,
        side_files=opened.side_files().files,
    )

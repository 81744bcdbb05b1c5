"""Show: what one version, file or definition holds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ckpt.compare.ties import ties_of
from ckpt.errors import RefError
from ckpt.opened import Named, Opened, OpenedDefinition, OpenedVersion, open_ref
from ckpt.registry.index import Version
from ckpt.registry.registry import Registry
from ckpt.tensors import TensorEntry

if TYPE_CHECKING:
    from ckpt.ops.show.deep import Deep


@dataclass(frozen=True, slots=True)
class Totals:
    """What a checkpoint holds in all; a tied tensor counts once.

    Attributes:
        elements: Of each dtype.
        nbytes: Of the tensors, contiguous.
    """

    elements: Mapping[str, int]
    nbytes: int


@dataclass(frozen=True, slots=True)
class Shown:
    """One checkpoint or definition.

    Attributes:
        name: As in messages.
        format: The container's format; None of a definition.
        size: Bytes of the file; None of a definition.
        entries: In file order.
        rest: The non-tensor part.
        written_by: What wrote the file, as far as it says.
        ties: Keys whose bytes are those of an earlier key, with that key.
        version: The line of the index, of a version.
        aliases: The aliases that point to it.
        tags: The tags that stand on it.
        record: Where a version comes from.
        deep: What reading everything found, if it was asked for.
    """

    name: str
    format: str | None
    size: int | None
    entries: Sequence[TensorEntry]
    rest: Mapping[str, Any]
    written_by: str | None = None
    ties: Mapping[str, str] = field(default_factory=dict)
    version: Version | None = None
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    record: Mapping[str, Any] | None = None
    deep: "Deep | None" = None

    def totals(self) -> Totals:
        """Of all entries."""
        elements: Counter[str] = Counter()
        nbytes = 0
        for entry in self.entries:
            if entry.key not in self.ties:
                elements[entry.dtype] += entry.numel
                nbytes += entry.nbytes
        return Totals(elements, nbytes)


def show(
    ref: Named,
    *,
    registry: Registry | None = None,
    deep: bool = False,
    arguments: Mapping[str, object] | None = None,
) -> Shown:
    """Describe what `ref` names. Of files only the header is read, of versions the manifest.

    Args:
        ref: A version, a file or a definition.
        registry: Where versions are looked up.
        deep: Read everything, and see that it is not damaged.
        arguments: What a definition is called with.

    Raises:
        RefError: It names nothing; or a definition is to be read.
        FormatError: The file is no checkpoint that can be read, or it is damaged.
        IntegrityError: The version is damaged.
    """
    registry = registry or Registry()
    with open_ref(ref, registry, arguments) as opened:
        shown = _shown(opened, registry)
        if not deep:
            return shown
        if isinstance(opened, OpenedDefinition):
            raise RefError(f"{ref} is a definition and holds no weights to read")
        from ckpt.ops.show.deep import examine

        return replace(shown, deep=examine(opened, registry))


def _shown(opened: Opened, registry: Registry) -> Shown:
    if isinstance(opened, OpenedDefinition):
        return Shown(opened.name, None, None, opened.entries, {})
    if isinstance(opened, OpenedVersion):
        manifest, version = opened.manifest, opened.version
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
            record=manifest.record,
        )
    checkpoint = opened.checkpoint
    return Shown(
        opened.name,
        checkpoint.format,
        checkpoint.source.size,
        checkpoint.entries,
        checkpoint.rest,
        checkpoint.written_by,
        ties_of(opened),
    )

"""Rm: remove versions from the list.

The line and the bytes of a removed version are kept, and its number is never reused.
"""

from collections.abc import Iterable

from ckpt.refs import several
from ckpt.registry.index import Index
from ckpt.registry.later_words import expect_short
from ckpt.registry.registry import InRegistry, Registry, now
from ckpt.registry.version import Version


def rm(
    refs: str | Iterable[str], *, message: str = "", registry: InRegistry | None = None
) -> list[Version]:
    """Remove versions, all or none.

    Args:
        refs: The versions, one or several.
        message: Why, for their history.
        registry: The registry; None finds it as the command line does.

    Raises:
        RefError: There is no such version.
        ConflictError: An alias points to one.

    Example:
        >>> extra = ckpt.register({"w": torch.ones(2)}, name="extra").version
        >>> [version.ref for version in ckpt.rm([extra.ref])]
        ['extra:v1']
    """
    registry, refs = Registry.of(registry), several(refs)
    expect_short(message)
    registry.expect_there()
    found: dict[str, Version] = {}

    def removed(index: Index) -> Index:
        found.update((version.ref, version) for version in map(index.find, refs))
        for version in found.values():
            model = index.model(version.model)
            index = index.with_model(model.without(version.number, at=now()))
        return index

    registry.index_file.commit(removed, lambda: "rm " + ", ".join(found), message=message)
    return list(found.values())

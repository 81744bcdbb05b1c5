"""Tags: labels on any number of versions, changed under the index's lock."""

from collections.abc import Iterable

from ckpt.errors import RefError
from ckpt.refs import expect_name, several
from ckpt.registry.index import Index, Model
from ckpt.registry.later_words import expect_short
from ckpt.registry.registry import InRegistry, Registry
from ckpt.registry.version import Version


def tag(
    ref: str,
    names: str | Iterable[str],
    *,
    present: bool = True,
    message: str = "",
    registry: InRegistry | None = None,
) -> tuple[Version, list[str]]:
    """Add tags to a version, or remove them; adding a tag twice changes nothing.

    Args:
        ref: The version.
        names: The tags, one or several.
        present: Whether it has them from now on.
        message: Why, for the history.
        registry: The registry; None finds it as the command line does.

    Returns:
        The version, and its tags after the change.

    Raises:
        RefError: There is no such version, or it lacks a tag that is to be removed.

    Example:
        >>> ckpt.tag("net:v1", ["paper"])[1]
        ['paper']
    """
    registry = Registry.of(registry)
    expect_short(message)
    chosen = [expect_name(name) for name in several(names)]
    done: list[tuple[Version, Model]] = []

    def tagged(index: Index) -> Model:
        version = index.find(ref)
        model = index.model(version.model)
        has = model.tags_of(version)
        if missing := [name for name in chosen if not present and name not in has]:
            hint = f"it has {', '.join(has)}" if has else "it has no tags"
            raise RefError(f"{version.ref} has no tag {missing[0]!r}", hint=hint)
        for name in chosen:
            model = model.with_tag(name, version.number, present=present)
        done.append((version, model))
        return model

    def what() -> str:
        return " ".join(["tag", done[-1][0].ref, *(() if present else ("-d",)), *chosen])

    registry.change(tagged, what, message=message)
    version, model = done[-1]
    return version, model.tags_of(version)

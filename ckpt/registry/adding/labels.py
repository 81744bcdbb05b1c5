"""The alias and tags that a version gets in the same write that adds it."""

from collections.abc import Iterable
from dataclasses import dataclass

from ckpt.errors import ConflictError
from ckpt.refs import expect_alias, expect_name, several
from ckpt.registry.index import Model


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels that a command was asked for.

    Attributes:
        alias: The alias that is to point to the version; empty for none.
        tags: The tags that it is to have.
    """

    alias: str = ""
    tags: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.alias or self.tags)

    def on(self, model: Model, number: int) -> Model:
        """The model with these labels on a version; the very same model if it has them already.

        Raises:
            ConflictError: The alias is protected and points to another version.
        """
        if self.alias and model.aliases.get(self.alias) != number:
            expect_movable(model, self.alias)
            model = model.with_alias(self.alias, number)
        for tag in self.tags:
            if number not in model.tags.get(tag, ()):
                model = model.with_tag(tag, number)
        return model


NO_LABELS = Labels()


def labels(alias: str | None, tags: str | Iterable[str]) -> Labels:
    """The labels of these names.

    Raises:
        UsageError: A name is not valid.
    """
    chosen = expect_alias(expect_name(alias)) if alias else ""
    return Labels(chosen, tuple(map(expect_name, several(tags))))


def expect_movable(model: Model, alias: str) -> None:
    """Refuse to move a protected alias whose version the caller has not named.

    Raises:
        ConflictError: It is protected.
    """
    if alias in model.protected:
        now = f"v{model.aliases[alias]}"
        raise ConflictError(
            f"{model.name}@{alias} is protected, and points to {now}",
            hint=f"ckpt alias {model.name}@{alias} REF --expect {now}  moves it anyway",
        )

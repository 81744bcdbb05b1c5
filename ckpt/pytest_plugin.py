"""`pytest --ckpt-guard`: a test for each class that pyproject.toml guards.

pytest imports this module whenever it starts; the rest of ckpt is imported when it is needed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("ckpt", "checkpoints that must keep loading")
    group.addoption(
        "--ckpt-guard",
        action="store_true",
        help="add a test for each class that [tool.ckpt] guards: it loads its old checkpoints",
    )
    group.addoption(
        "--ckpt-guard-against",
        metavar="git:REV",
        help="compare with the classes of another revision instead; implies --ckpt-guard",
    )


def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add the tests."""
    against = config.getoption("ckpt_guard_against")
    if not (against or config.getoption("ckpt_guard")):
        return
    from ckpt.errors import CkptError
    from ckpt.ops.guard.settings import settings_of

    try:
        settings = settings_of((), folder=config.rootpath)
    except CkptError as error:
        raise pytest.UsageError(_told(error)) from error
    items += [
        GuardItem.from_parent(
            session,
            name=f"guard[{guarded.definition}]",
            nodeid=f"pyproject.toml::guard[{guarded.definition}]",
            definition=guarded.definition,
            folder=settings.folder,
            against=against,
        )
        for guarded in settings.guarded
    ]


class GuardError(Exception):
    """A class no longer loads its old checkpoints; the text says which and why."""


class GuardItem(pytest.Item):
    """The test of one class."""

    def __init__(self, *, definition: str, folder: Path, against: str | None, **rest: Any) -> None:
        super().__init__(**rest)
        self._definition, self._folder, self._against = definition, folder, against

    def runtest(self) -> None:
        """Build the class, and compare it."""
        from ckpt.ops.guard import guard
        from ckpt.registry.registry import Registry
        from ckpt.show.guard import guard_text

        registry = Registry()
        found = guard(
            self._definition, against=self._against, folder=self._folder, registry=registry
        )
        if not found.holds:
            problems: Sequence[str] = [it.problem or "" for it in found.failed]
            raise GuardError("\n".join([*problems, guard_text(found, width=None)]).strip("\n"))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *_: Any) -> str:
        """What is broken, without a traceback."""
        from ckpt.errors import CkptError

        if isinstance(excinfo.value, CkptError):
            return _told(excinfo.value)
        if isinstance(excinfo.value, GuardError):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where the class is guarded, and the name of the test."""
        return self._folder / "pyproject.toml", None, self.name


def _told(error: Any) -> str:
    return f"{error}" + (f"\nhint: {error.hint}" if error.hint else "")

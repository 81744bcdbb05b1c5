"""What a revision promised besides its classes: definitions of other names, and migrations.

Law: a class that was renamed or moved is compared with what it was, and a checkpoint that loaded
through migrations at the revision still loads.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ckpt.compare.keys import Fit
from ckpt.errors import CkptError
from ckpt.migrate.described import Described, name_of
from ckpt.migrate.folder import Place, settings_above
from ckpt.migrate.migration import SUFFIX, Migration
from ckpt.migrate.revision import Revision
from ckpt.migrate.schema import fold_all
from ckpt.ops.guard.settings import Guarded, settings_of
from ckpt.ops.guard.verdicts import Verdict
from ckpt.ops.guard.weights import Weights
from ckpt.tensors import StateDict


def no_longer_guarded(revision: Revision, guarded: Sequence[Guarded]) -> list[str]:
    """The definitions that the settings guarded at a revision, and no longer do."""
    project, _ = settings_above(revision.folder)
    if project != revision.folder:  # paths begin elsewhere, or there were no settings
        return []
    try:
        then = settings_of((), folder=project).guarded
    except CkptError:  # not valid at the time
        return []
    now = {it.definition.partition("(")[0] for it in guarded}
    return [it.definition for it in then if it.definition.partition("(")[0] not in now]


def likely_former(definition: str, gone: Sequence[str]) -> list[str]:
    """Which of some definitions a new one probably was: of its name, else of its file, else any."""
    place = definition.partition("(")[0].rpartition(":")[0]
    named = [it for it in gone if name_of(it) == name_of(definition)]
    beside = [it for it in gone if it.partition("(")[0].rpartition(":")[0] == place]
    return named or beside or [*gone]


def broken_ways(
    before: Described, then: Place, after: Described, now: Place, revision: Revision
) -> Iterator[Verdict]:
    """A verdict for each schema from which migrations led to a class, and no longer do.

    Args:
        before: The class at the revision.
        then: Where its migrations were.
        after: The class.
        now: Where its migrations are.
        revision: The revision.
    """
    old, new = then.graph(), now.graph()
    present = {it.name: it for it in new.migrations}
    if all(present.get(it.name) == it for it in old.migrations):
        return
    was, end = (fold_all([it.schema]) for it in (before, after))
    for migration in old.migrations:
        led = old.leads(migration.before, was)
        if led and not new.leads(migration.before, end):
            name = f"{revision.name}, before {migration.name}"
            reason = _reason(migration, revision.now(then.folder), now, revision.name)
            yield Verdict((Weights(name, StateDict(())),), Fit((), (), (), 0), reason=reason)


def _reason(migration: Migration, folder: Path, now: Place, revision: str) -> str:
    """What became of a migration."""
    same = [it for it in now.migrations() if it.name == migration.name]
    if not same:
        path = folder / f"{migration.name}{SUFFIX}"
        back = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        return f"their migration is gone; to bring it back:  git checkout {revision} -- {back}"
    if now.definition not in same[0].definitions:
        return f"their migration is not of this class: add {now.definition!r} to its definition"
    return "their migration was changed, and no longer leads to the class"

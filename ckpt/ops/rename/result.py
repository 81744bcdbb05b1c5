"""The result of a rename: apply a plan, and write a file, add a version, or both."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Unpack

from ckpt.errors import ConflictError, UnexplainedError, UsageError
from ckpt.formats import is_usual, safetensors
from ckpt.formats.folders import optimizers_in
from ckpt.formats.opaque import OpaqueWord
from ckpt.in_memory import is_in_memory
from ckpt.io.journal import overwriting
from ckpt.opened import parse_named
from ckpt.opened.altered import numbered, reordered, settled, without_optimizers
from ckpt.opened.named import Weights
from ckpt.opened.states import OpenedFile, OpenedState, OpenedVersion
from ckpt.ops.rename.goal import expect_known
from ckpt.ops.rename.mentions import mentions
from ckpt.ops.rename.opening import open_source
from ckpt.ops.rename.plan import RenamePlan
from ckpt.ops.rename.rule_files import RuleFile, write_rule_file
from ckpt.ops.rename.to_file import (
    Output,
    Rest,
    expect_output,
    expect_proportion,
    is_folder_for,
    rest_of,
    target_of,
    write_result,
)
from ckpt.ops.rename.training.optimizers import folder_of, for_another_class
from ckpt.printed import Printed
from ckpt.refs import FileRef, is_url
from ckpt.registry.registry import InRegistry, Registry
from ckpt.rules.expressions import sources_of
from ckpt.side_files import Readable, configs_beside
from ckpt.writing.written import Written

if TYPE_CHECKING:
    from ckpt.registry.adding import Added


@dataclass(frozen=True, slots=True, repr=False)
class Renamed(Printed):
    """What a rename did, or would do.

    Attributes:
        left_out: What the added version does not hold of the one before, a few words for each.
        saved: The rule file that was written.
        dropped: The opaque objects of the source that the result does not hold.
        left_behind: Other places in the file that keep the old keys.
        mentions: The side files, and the parts of the file itself, that name what is renamed;
            they stay as they are.
        optimizer_files: Files beside a file that was renamed in place, in which a trainer keeps an
            optimizer; they stay as they are, too.
        followed_files: Such files that are written into the new folder, in the new class's order.
        unfollowed: Why they are not.
    """

    VIEW: ClassVar = "ckpt.show.rename:renamed_text"

    plan: RenamePlan
    written: Written | None = None
    added: "Added | None" = None
    left_out: tuple[str, ...] = ()
    saved: Path | None = None
    dropped: tuple[str, ...] = ()
    left_behind: tuple[str, ...] = ()
    mentions: tuple[str, ...] = ()
    optimizer_files: tuple[str, ...] = ()
    followed_files: tuple[str, ...] = ()
    unfollowed: str | None = None

    def _brief(self) -> str:
        done = self.written.ref if self.written else self.added.version.ref if self.added else None
        return f"{self.plan.brief}, {f'into {done}' if done else 'nothing written'}"

    @property
    def in_old_order(self) -> Sequence[str]:
        """Paths of the result's optimizers whose order no definition was compared with."""
        holds_them = self.written is None or is_usual(self.written.path, "torch-zip")
        return self.plan.in_old_order if holds_them else ()


def apply(
    plan: RenamePlan,
    *,
    registry: InRegistry | None = None,
    **output: Unpack[Output],
) -> Renamed:
    """Do what `plan_rename` planned; the arguments are those of `rename`.

    Raises:
        ConflictError: The checkpoint has other tensors than when it was planned, or another
            process renames it in place.
        UsageError: `out` already exists.

    Example:
        >>> plan = ckpt.plan_rename("old.pt", ["conv->embed"])
        >>> ckpt.apply(plan, out="new.pt").written.path.name
        'new.pt'
    """
    expect_known(output, Output.__optional_keys__)
    expect_output(output)
    registry = Registry.of(registry)
    if is_in_memory(plan.source):
        raise UsageError(
            f"{plan.name} is in memory, and apply writes", hint="rename  returns the result"
        )
    with (
        alone(plan.source, output, registry),
        open_source(plan.source, registry, {"copies": plan.copies}) as opened,
    ):
        if list(opened.entries) != list(plan.entries):
            raise ConflictError(f"{plan.name}: changed after it was planned", hint="plan again")
        return carry_out(plan, opened, output, registry)


def carry_out(
    plan: RenamePlan,
    source: OpenedState,
    output: Output,
    registry: Registry,
    *,
    dry_run: bool = False,
) -> Renamed:
    """Like `apply`, with the checkpoint open; a dry run stops before anything is written.

    If it fits already, only a file or version that was asked for is written.
    """
    asks = output.get("out") or output.get("register_result") or output.get("opaque") == "drop"
    if not plan.applied and not plan.undoes and not asks:
        return Renamed(plan)
    saved, opaque = output.get("save_rules"), output.get("opaque")
    if plan.undoes and saved is not None:
        raise UsageError("--undo has no rules to save")
    url = _url_of(output)
    path = Path(url.rstrip("/").rpartition("/")[2]) if url else target_of(source, plan, output)
    message = output.get("message", "")
    if message and path is not None and not output.get("register_result"):
        raise UsageError("-m is for a version, and none is added", hint="--register  adds one")
    expect_proportion(source, plan, output)
    kept, dropped = _without_unwanted(source, plan, opaque)
    orders = {} if plan.dropped else {each.path: each.after for each in plan.optimizers}
    opened = numbered(reordered(kept, orders), plan.numbers)
    rest = rest_of(opened, plan, path, asked=output.get("out") is not None)
    result = replace(
        _beside(plan, source, path, in_place=output.get("in_place", False)),
        dropped=dropped,
        left_behind=_left_behind(opened, plan, keeps=plan.is_rename or rest is not None),
    )
    if dry_run:
        if plan.is_rename:
            opened.checkpoint.renamed({**plan.new_keys, **plan.aliases})  # may refuse
        return result
    if path is not None:
        result = replace(result, written=_written(opened, plan, path, output, rest, registry))
    elif isinstance(opened, OpenedVersion):
        from ckpt.ops.rename.to_version import add_version

        if dropped:
            raise _leaves_out(source)
        added, left_out = add_version(opened, plan, registry, rest, opaque=opaque, message=message)
        result = replace(result, added=added, left_out=left_out)
    if saved is not None:
        _save_rules(plan, Path(saved))
        result = replace(result, saved=Path(saved))
    if output.get("register_result") and result.written is not None:
        added = _into_registry(result.written, opened, plan, output, registry)
        result = replace(result, added=added)
    return result


def _url_of(output: Output) -> str | None:
    """The URL of an object or folder in a bucket, if the result goes to one."""
    out = output.get("out")
    return out if isinstance(out, str) and is_url(out) else None


def _written(
    opened: OpenedState,
    plan: RenamePlan,
    path: Path,
    output: Output,
    rest: Rest,
    registry: Registry,
) -> Written:
    """Write the result to a path of this machine, or to a bucket if that was asked for."""
    url = _url_of(output)
    if url is None:
        return write_result(opened, plan, path, output, rest)
    from ckpt.ops.rename.to_bucket import write_to_bucket

    return write_to_bucket(opened, plan, url, output, rest, registry)


def _leaves_out(version: OpenedState) -> UsageError:
    """What refuses to leave something out of a version's next one, which shares its objects."""
    return UsageError(
        f"{version.name}: a rename of a version keeps its objects and optimizers",
        hint="-o NEW.pt  writes a file without them",
    )


def _beside(plan: RenamePlan, source: OpenedState, path: Path | None, *, in_place: bool) -> Renamed:
    """What becomes of the files beside the weights, if these go to `path`."""
    into_folder = path is not None and is_folder_for(source, plan, path)
    return Renamed(
        plan,
        mentions=_mentioned(plan, source, path),
        optimizer_files=_optimizer_files(plan, path) if in_place else (),
        followed_files=tuple(plan.optimizer_files) if into_folder else (),
        unfollowed=_unfollowed(plan) if into_folder else None,
    )


def _save_rules(plan: RenamePlan, path: Path) -> None:
    name = f"rename of {plan.name}"
    former = plan.former if plan.numbers else {}
    write_rule_file(
        path, RuleFile(name, plan.applied, plan.entries, plan.tied, plan.optimizers, former)
    )


def _without_unwanted(
    source: OpenedState, plan: RenamePlan, opaque: OpaqueWord | None
) -> tuple[OpenedState, tuple[str, ...]]:
    """The source without opaque objects and optimizers that are to go, and what is gone."""
    kept, dropped = settled(source, opaque)
    if plan.drops_optimizer:
        kept, optimizers = without_optimizers(kept)
        folder = folder_of(source)
        prefixes = folder.optimizers if folder is not None else ()
        dropped = [*dropped, *optimizers, *(prefix.removesuffix(".") for prefix in prefixes)]
    return kept, tuple(dropped)


def _mentioned(plan: RenamePlan, source: OpenedState, path: Path | None) -> tuple[str, ...]:
    """What stays and names what is renamed: of side files those that belong to the result."""
    files: Iterable[Readable] = ()
    if path is None or is_folder_for(source, plan, path):
        files = source.side_files().files
    elif isinstance(source, OpenedFile) and not source.is_folder and _are_beside(path, source.path):
        files = configs_beside(path)
    return mentions(source, files, plan)


def _are_beside(one: Path, other: Path) -> bool:
    return one.parent.resolve() == other.parent.resolve()


def _unfollowed(plan: RenamePlan) -> str | None:
    """Why the optimizers beside the weights of a folder do not follow, in one line."""
    error = plan.files_stuck
    if error is None:
        return None
    explained = not isinstance(error, UnexplainedError)
    named = "" if explained else "; --from OLD_DEF  names the old class"
    return str(error).removeprefix(f"{plan.name}: ") + named


def _optimizer_files(plan: RenamePlan, path: Path | None) -> tuple[str, ...]:
    """The files beside `path` whose optimizer has the order of parameters of the old class."""
    if path is None or not for_another_class(plan, plan.applied):
        return ()
    return optimizers_in(path.parent)


@contextmanager
def alone(
    source: Weights, output: Output, registry: Registry, *, dry_run: bool = False
) -> Iterator[None]:
    """Keep other processes from renaming the same file in place; links are refused later."""
    ref = parse_named(source, registry) if isinstance(source, str | PathLike) else None
    writes = output.get("in_place") and not dry_run
    path = ref.path if writes and isinstance(ref, FileRef) else None
    if path is None or not path.is_file() or path.is_symlink():
        yield
    else:
        with overwriting(path, is_start=safetensors.is_start):
            yield


def _left_behind(opened: OpenedState, plan: RenamePlan, *, keeps: bool) -> tuple[str, ...]:
    """Copies of the state_dict, and parts of an optimizer, that will still have the old keys.

    There are none unless the result `keeps` what else the source holds.
    """
    if not keeps:
        return ()
    changed = {change.old for change in plan.renamed} | {gone.key for gone in plan.dropped}
    changed |= {key for made in plan.made for key in sources_of(made.made_of)}
    return tuple(opened.checkpoint.left_behind(changed))


def _into_registry(
    written: Written, opened: OpenedState, plan: RenamePlan, output: Output, registry: Registry
) -> "Added":
    from ckpt.ops.register import model_name, register
    from ckpt.ops.rename.to_version import plan_record

    name = output.get("name")
    if not name:
        name = model_name(opened.path) if isinstance(opened, OpenedFile) else opened.version.model
    return register(
        written.ref,
        registry=registry,
        name=name,
        made_by=f"rename of {Path(plan.name).name}",
        message=output.get("message", ""),
        record={"plan": plan_record(plan)},
        opaque=output.get("opaque"),
    )

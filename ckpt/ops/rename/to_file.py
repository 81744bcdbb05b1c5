"""The file that a plan makes: where it goes, and in which container."""

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from ckpt.dtypes import itemsize
from ckpt.errors import PlanError, UsageError
from ckpt.formats import format_for, format_of, is_usual
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.opaque import OpaqueWord, torch_file, without_tensors
from ckpt.opened.states import OpenedFile, OpenedState, OpenedVersion
from ckpt.ops.rename.plan import RenamePlan
from ckpt.ops.rename.training.optimizers import DISTRIBUTED, folder_of
from ckpt.ops.rename.training.trainer_files import with_trainer_files
from ckpt.refs import expect_name
from ckpt.rules.plan import Plan
from ckpt.rules.sizes import in_memory
from ckpt.writing.checkpoint import Remaking, write_checkpoint, write_tensors
from ckpt.writing.with_files import is_file_name, write_with_files
from ckpt.writing.written import Written

if TYPE_CHECKING:
    from ckpt.formats.torch_state import TorchFile

Rest = Checkpoint | Remaking | None  # see `rest_of`

# A result of more bytes than these, and than so many sources, is asked for with `--force`.
MOST_MADE_BYTES = 1 << 30
MOST_GROWTH = 16


class Output(TypedDict, total=False):
    """Where the result of a rename goes.

    Attributes:
        out: The file to write; for a file, by default, ``old.renamed.pt`` beside it; for a
            version only if given, and then no version is added.
        replace_out: Whether to replace `out` if it exists, and to make tensors of any size.
        in_place: Replace the file itself, atomically.
        save_rules: A rule file to write, which can be applied again and undone.
        register_result: Register the file that is written as the next version of a model.
        message: A message for the version that is added.
        name: That model; None takes the version's, or the file's name.
        opaque: What becomes of objects of unknown classes; see `ckpt.ops.register`.
    """

    out: Path | str | None
    replace_out: bool
    in_place: bool
    save_rules: Path | str | None
    register_result: bool
    name: str | None
    message: str
    opaque: OpaqueWord | None


def expect_output(output: Output) -> None:
    """Check an output as far as nothing needs to be opened for it."""
    if (name := output.get("name")) is not None:
        expect_name(name)
        if not output.get("register_result"):
            raise UsageError("--name needs --register")
    if (saved := output.get("save_rules")) is not None:
        path = Path(saved)
        if not path.parent.is_dir():
            raise UsageError(f"{path.parent}: no such folder")
        if path.exists():
            raise UsageError(f"{path} already exists", hint="name another with --save-rules")


def target_of(opened: OpenedState, plan: Plan, output: Output) -> Path | None:
    """The file to write, which is not the input unless in place; None for the next version."""
    in_place, out = output.get("in_place"), output.get("out")
    if isinstance(opened, OpenedVersion) and out is None:
        if opened.is_elsewhere:
            raise UsageError(
                f"{opened.name} is in a registry elsewhere, which gets no version from here",
                hint="-o  writes a file here",
            )
        if in_place or output.get("replace_out") or output.get("register_result"):
            raise UsageError(
                f"{opened.name} is a version and never changes; its rename is the next version",
                hint="-o  writes a file instead",
            )
        return None
    if in_place and (out is not None or opened.is_folder):
        what = "-o" if out is not None else "a folder"
        raise UsageError(f"--in-place replaces one file; it cannot be used with {what}")
    if in_place and isinstance(opened, OpenedFile):
        if opened.origin is not None:
            raise UsageError(
                f"{opened.name} is elsewhere, and --in-place replaces a file here",
                hint="-o  writes a new file",
            )
        return opened.path
    path = None if out is None else Path(out)
    if isinstance(opened, OpenedFile):
        path = path or _beside(opened, as_folder=_fits_a_folder(opened, plan))
        opened.expect_other(path)
    return path


def expect_proportion(opened: OpenedState, plan: Plan, output: Output) -> None:
    """Refuse to make tensors far larger than the source, as a mistyped shape would."""
    wholes = [t.made_of for t in plan.tensors]
    wholes += [held for t in plan.tensors for held in in_memory(t.made_of)]
    made = sum(prod(whole.shape) * itemsize(whole.dtype) for whole in wholes)
    most = MOST_MADE_BYTES + MOST_GROWTH * sum(entry.nbytes for entry in opened.entries)
    if made > most and not output.get("replace_out"):
        raise PlanError(
            f"{opened.name}: the rules make tensors of {made:,} bytes, over the limit of {most:,}",
            hint="check the shapes; -o FILE --force  writes them all the same",
        )


def write_result(
    opened: OpenedState, plan: RenamePlan, out: Path, output: Output, rest: Rest
) -> Written:
    """Write what a plan makes of a file or version; into a folder, with its side files.

    `rest` is what `rest_of` gave for these.
    """
    as_folder = is_folder_for(opened, plan, out)
    in_place = output.get("in_place", False)

    def write(path: Path) -> Written:
        return write_plan(
            opened,
            plan,
            path,
            rest,
            replace_out=in_place or output.get("replace_out", False),
            in_place=in_place,
            opaque=output.get("opaque"),
        )

    found = opened.side_files()
    if as_folder and isinstance(opened, OpenedFile):
        found = with_trainer_files(found, opened.path, plan, plan.optimizer_files)
    return write_with_files(write, out, found, names=opened.names, as_folder=as_folder)


def is_folder_for(opened: OpenedState, plan: Plan, out: Path) -> bool:
    """Whether the result at `out` is a folder, with the side files."""
    return _fits_a_folder(opened, plan) and not is_file_name(out, opened.names)


def _fits_a_folder(opened: OpenedState, plan: Plan) -> bool:
    """Whether the result can be a folder; new tensors of shards go into one file."""
    if opened.checkpoint.format == DISTRIBUTED:
        return True
    return opened.is_folder and (plan.is_rename or len(opened.names) == 1)


def write_plan(
    opened: OpenedState,
    plan: RenamePlan,
    out: Path,
    rest: Rest,
    *,
    replace_out: bool = False,
    in_place: bool = False,
    opaque: OpaqueWord | None = None,
) -> Written:
    """Write what a plan makes of a file or version; where only names change, in its own container.

    The suffix of `out` chooses the container, unless it is the source itself; `rest` is what
    `rest_of` gave; `opaque` is ``keep`` if objects that run code when unpickled are to be written
    too.
    """
    checkpoint = opened.checkpoint
    if isinstance(rest, Remaking):
        inside = opened.inside
        return rest.write(
            out, inside=inside, replace_out=replace_out, in_place=in_place, opaque=opaque
        )
    same = in_place or is_usual(out, checkpoint.format)
    if rest is not None or plan.is_rename:
        return write_checkpoint(
            rest or checkpoint,
            out,
            form=None if same else format_for(out),
            new_keys={**plan.new_keys, **plan.aliases},
            inside=opened.inside,
            replace_out=replace_out,
            in_place=in_place,
            opaque=opaque,
            apart=plan.apart,
        )
    return write_tensors(
        checkpoint,
        plan.tensors,
        out,
        form=format_of(checkpoint.format) if same else format_for(out),
        aliases=plan.aliases,
        replace_out=replace_out,
        whole=in_place,
        apart=plan.apart,
        dropped=[dropped.key for dropped in plan.dropped],
    )


def rest_of(opened: OpenedState, plan: RenamePlan, out: Path | None, *, asked: bool) -> Rest:
    """The file that also holds what else the source holds, if the plan does not only rename.

    None if nothing else would be lost, or the container cannot hold it.

    Args:
        opened: The source.
        plan: The plan.
        out: As in `target_of`.
        asked: Whether `out` was named.

    Raises:
        PlanError: Something in it cannot follow, or cannot be written again.
    """
    same = out is None or is_usual(out, opened.checkpoint.format)
    if (same or not asked) and plan.stuck is not None:
        raise plan.stuck
    folder = folder_of(opened) if same else None
    if folder is not None and (plan.drops_optimizer or not plan.is_rename):
        from ckpt.writing.remade_folder import remade_folder

        return remade_folder(folder, plan, plan.regrouped, drops_optimizers=plan.drops_optimizer)
    file = torch_file(opened.checkpoint)
    if not same or file is None or not file.state.holds_more:
        return None
    if plan.keeps_tensors and not plan.regrouped:
        return _without_dropped(opened, file, plan)
    from ckpt.writing.remade import remade

    return remade(opened.checkpoint, plan, plan.regrouped)


def _without_dropped(opened: OpenedState, file: "TorchFile", plan: RenamePlan) -> Rest:
    """The file without the tensors that a plan drops, so that the others are renamed."""
    if not plan.dropped or plan.undoes:
        return None
    gone = {dropped.key for dropped in plan.dropped} | set(filter(plan.drops, file.others))
    orders = {moved.path: moved.after for moved in plan.optimizers}
    left = without_tensors(opened.checkpoint, opened.inside, gone, orders)
    if not file.state.numbers:
        return left
    from ckpt.formats.torch_state import TorchFile

    assert isinstance(left, TorchFile)
    return left.numbered(file.state.numbers)


def _beside(opened: OpenedFile, *, as_folder: bool) -> Path:
    """The default output: ``old.renamed.pt`` beside the file, or a folder beside the folder.

    What is elsewhere is renamed into the current folder.
    """
    path, is_here = opened.path, opened.origin is None
    if not opened.is_folder:
        new = path.with_name(f"{path.stem}.renamed{path.suffix}")
        return new if is_here else Path(new.name)
    folder = path if opened.names_folder else path.parent
    if not is_here:
        folder = Path(folder.name)
    elif folder.resolve() == Path.cwd():
        folder = Path("..") / Path.cwd().name
    if as_folder:
        return folder.with_name(f"{folder.name}.renamed")
    return folder.with_name(f"{folder.name}.renamed{suffix_of(opened.checkpoint.format)}")


def suffix_of(form: str) -> str:
    """The suffix of what holds tensors of a checkpoint of this format; a folder has none."""
    if form == DISTRIBUTED:
        return ""
    return ".safetensors" if "safetensors" in form else ".pt"

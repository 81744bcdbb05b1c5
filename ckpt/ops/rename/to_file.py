"""Where the file goes that a plan makes, and in which container."""

from pathlib import Path

from ckpt.errors import UsageError
from ckpt.formats import format_for, format_of, is_usual
from ckpt.opened import OpenedFile, OpenedState, OpenedVersion
from ckpt.rules.plan import Plan
from ckpt.writing.checkpoint import Written, write_checkpoint, write_tensors


def target_of(opened: OpenedState, plan: Plan, out: Path | None, *, in_place: bool) -> Path:
    """Where the new file goes.

    Raises:
        UsageError: It would be the input, or in place of several files.
    """
    several = len(opened.checkpoint.source.parts) > 1
    if in_place and (out is not None or several):
        what = "-o" if out is not None else "a folder of several files"
        raise UsageError(f"--in-place replaces one file; {what} cannot go with it")
    if isinstance(opened, OpenedVersion):
        assert out is not None  # else a version is added
        return out
    if in_place:
        return opened.path
    out = out or _beside(opened, as_folder=several and plan.is_rename)
    opened.expect_other(out)
    return out


def _beside(opened: OpenedFile, *, as_folder: bool) -> Path:
    """The default output: ``old.renamed.pt`` beside the file, or a folder beside the folder."""
    path = opened.path
    if len(opened.checkpoint.source.parts) == 1:
        return path.with_name(f"{path.stem}.renamed{path.suffix}")
    folder = path if path.is_dir() else path.parent
    if folder.resolve() == Path.cwd():
        folder = Path("..") / Path.cwd().name
    if as_folder:
        return folder.with_name(f"{folder.name}.renamed")
    suffix = ".safetensors" if "safetensors" in opened.checkpoint.format else ".pt"
    return folder.with_name(f"{folder.name}.renamed{suffix}")


def write_plan(
    opened: OpenedState, plan: Plan, out: Path, *, replace_out: bool, in_place: bool = False
) -> Written:
    """Write what a plan makes of a file or version; where names alone change, as it is.

    Args:
        opened: The source.
        plan: What becomes of it.
        out: Its suffix chooses the container.
        replace_out: Whether a file that stands there is replaced.
        in_place: Whether `out` is the source itself, whose container stays.
    """
    checkpoint = opened.checkpoint
    same = in_place or is_usual(out, checkpoint.format)  # in place no container changes
    if plan.is_rename:
        return write_checkpoint(
            checkpoint,
            out,
            form=None if same else format_for(out),
            new_keys={**plan.new_keys, **plan.aliases},
            inside=opened.inside,
            replace_out=replace_out or in_place,
            in_place=in_place,
        )
    replace_out = replace_out or in_place
    form = format_of(checkpoint.format) if same else format_for(out)
    return write_tensors(
        checkpoint,
        plan.tensors,
        out,
        form=form,
        aliases=plan.aliases,
        replace_out=replace_out,
        whole=in_place,
    )

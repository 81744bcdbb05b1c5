"""The file that a plan makes: where it goes, and in which container."""

from dataclasses import dataclass
from pathlib import Path

from ckpt.errors import UsageError
from ckpt.formats import format_for, format_of, is_usual
from ckpt.formats.opaque import OpaqueWord
from ckpt.opened import OpenedFile, OpenedState, OpenedVersion
from ckpt.refs import expect_name
from ckpt.rules.plan import Plan
from ckpt.writing.checkpoint import Written, write_checkpoint, write_tensors


@dataclass(frozen=True, slots=True)
class Output:
    """Where the result of a rename goes, checked as far as nothing needs to be opened for it.

    Attributes:
        out: The file to write; None for the default.
        replace_out: Whether to replace a file that already exists.
        in_place: Whether to replace the source itself.
        save_rules: The rule file to write.
        register_result: Whether to register the file as well.
        name: The model for that; None takes the version's, or the file's name.
        opaque: What becomes of objects of unknown classes; see `ckpt.ops.register`.

    Raises:
        UsageError: The rule file already exists, or its folder does not.
        RefError: `name` cannot be the name of a model.
    """

    out: Path | None = None
    replace_out: bool = False
    in_place: bool = False
    save_rules: Path | None = None
    register_result: bool = False
    name: str | None = None
    opaque: OpaqueWord | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            expect_name(self.name)
        if self.save_rules is None:
            return
        if not self.save_rules.parent.is_dir():
            raise UsageError(f"{self.save_rules.parent}: no such folder")
        if self.save_rules.exists():
            raise UsageError(
                f"{self.save_rules} already exists", hint="name another with --save-rules"
            )


def target_of(opened: OpenedState, plan: Plan, output: Output) -> Path | None:
    """The file to write; None where the result is the next version.

    Raises:
        UsageError: It would overwrite the input, or cannot be replaced in place.
    """
    if isinstance(opened, OpenedVersion) and output.out is None:
        if output.in_place or output.replace_out or output.register_result:
            raise UsageError(
                f"{opened.name} is a version and never changes; its rename is the next version",
                hint="-o  writes a file instead",
            )
        return None
    several = len(opened.checkpoint.source.parts) > 1
    if output.in_place and (output.out is not None or several):
        what = "-o" if output.out is not None else "a folder of several files"
        raise UsageError(f"--in-place replaces one file; it cannot be used with {what}")
    if isinstance(opened, OpenedVersion):
        return output.out
    if output.in_place:
        return opened.path
    out = output.out or _beside(opened, as_folder=several and plan.is_rename)
    opened.expect_other(out)
    return out


def write_plan(
    opened: OpenedState,
    plan: Plan,
    out: Path,
    *,
    replace_out: bool = False,
    in_place: bool = False,
    opaque: OpaqueWord | None = None,
) -> Written:
    """Write what a plan makes of a file or version; where only names change, in its own container.

    Args:
        opened: The source.
        plan: What becomes of it.
        out: The file; its suffix chooses the container.
        replace_out: Whether to replace a file that already exists.
        in_place: Whether `out` is the source itself, whose container stays the same.
        opaque: ``keep`` if objects that run code when unpickled are to be written too.
    """
    checkpoint = opened.checkpoint
    same = in_place or is_usual(out, checkpoint.format)
    if plan.is_rename:
        return write_checkpoint(
            checkpoint,
            out,
            form=None if same else format_for(out),
            new_keys={**plan.new_keys, **plan.aliases},
            inside=opened.inside,
            replace_out=replace_out,
            in_place=in_place,
            opaque=opaque,
        )
    return write_tensors(
        checkpoint,
        plan.tensors,
        out,
        form=format_of(checkpoint.format) if same else format_for(out),
        aliases=plan.aliases,
        replace_out=replace_out,
        whole=in_place,
    )


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
    return folder.with_name(f"{folder.name}.renamed{suffix_of(opened.checkpoint.format)}")


def suffix_of(form: str) -> str:
    """The suffix of one file that holds tensors of a checkpoint of this format."""
    return ".safetensors" if "safetensors" in form else ".pt"

"""A file, or a folder of files, that was written."""

from collections.abc import Sequence
from typing import Any

from ckpt.show.look.fields import fields
from ckpt.show.look.words import count, first_names, printable, size, tied_data, tied_text
from ckpt.writing.written import Written


def written_text(written: Written) -> str:
    """Its path and size; of an artifact, its digest in a second line."""
    path, sent = printable(written.name), ""
    if written.was_there:
        return f"{path} is this version already\n{written.digest}"
    if written.digest:
        files = f"{count(written.files, 'layer')}, {size(written.size)}"
        part = "all" if written.sent == written.size else size(written.sent or 0)
        rest = "" if written.sent == written.size else "; the rest was there"
        return f"wrote {path}  {files}, {part} of them sent{rest}\n{written.digest}"
    if written.sent is not None:
        sent = f", {size(written.sent)} of them sent; the rest was in the bucket"
        if written.sent == written.size:
            sent = f", all of them sent{f' ({written.sent_why})' if written.sent_why else ''}"
    if written.files == 1:
        return f"wrote {path}  {size(written.size)}{sent}"
    return f"wrote {path.rstrip('/')}/  {count(written.files, 'file')}, {size(written.size)}{sent}"


def left_out_text(left_out: Sequence[str]) -> str | None:
    """The content that the new container cannot hold, if there was any."""
    return (
        f"not written (the new file cannot hold it): {first_names(left_out)}" if left_out else None
    )


def also_named_text(written: Written) -> str | None:
    """Other places in the file where the keys were renamed, if there were any."""
    return f"also renamed in {first_names(written.also_named)}" if written.also_named else None


def stored_once_text(written: Written | None) -> str | None:
    """The names of tied tensors that a safetensors file only notes, if there are any."""
    return tied_text(written.tied) if written else None


def dropped_text(dropped: Sequence[str]) -> str | None:
    """The opaque objects that were left out, if there were any."""
    return f"not written: {first_names(dropped)}" if dropped else None


def unopened_text(written: Written | None) -> str | None:
    """Why torch refuses the file with weights_only, if it does."""
    if written is None or not written.unopened:
        return None
    path, why = printable(written.name), first_names(written.unopened)
    source = f"{path}::{printable(written.chosen)}" if written.chosen else f"{path} --drop-opaque"
    return (
        f"torch will need weights_only=False for this file because of {why}; "
        f"to get one that opens:  ckpt export {source} -o NEW.pt"
    )


def written_data(written: Written) -> dict[str, Any]:
    """The same for JSON."""
    names = ("path=name", "files", "size", "left_out", "also_named", "dropped", "unopened")
    sent = {} if written.sent is None else fields(written, "sent")
    artifact = fields(written, "digest", "was_there") if written.digest else {}
    return {**fields(written, *names), **sent, **artifact, "tied": tied_data(written.tied)}

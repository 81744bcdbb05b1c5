"""Whether unpickling a file may run code, and which of its globals torch refuses."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ckpt.errors import excerpt
from ckpt.formats.opaque import ForeignGlobal, safe_globals
from ckpt.show.look.fields import fields
from ckpt.show.look.words import printable

if TYPE_CHECKING:
    from ckpt.ops.audit import Audited

_LONG_NAME = 200  # characters


def audited_text(audited: "Sequence[Audited]") -> str:
    """A line for each file."""
    wide = max((len(printable(one.name)) for one in audited), default=0)
    return "\n".join(f"{printable(one.name):<{wide}}  {_verdict(one)}" for one in audited)


def _verdict(audited: "Audited") -> str:
    if audited.reason is not None:
        return f"cannot be judged: {printable(audited.reason)}"
    if audited.code:
        return code_text(audited.code)
    return "nothing runs when unpickled"


def code_text(code: Sequence[ForeignGlobal]) -> str:
    """The globals that run code, with their offsets."""
    places = (f"{_name(found)} at offset {found.offset:,}" for found in code)
    return f"runs code when unpickled: {', '.join(places)}"


def foreign_text(foreign: Sequence[ForeignGlobal]) -> Iterator[str]:
    """All foreign globals, and the way to make torch accept some of them."""
    yield "objects that torch.load refuses with weights_only:"
    wide = max(len(_name(found)) for found in foreign)
    for found in foreign:
        verdict = "runs code when unpickled" if found.runs_code else "harmless"
        yield f"  {_name(found):<{wide}}  {verdict}"
    line = safe_globals(found.name for found in foreign)
    if line is not None:
        yield f"  if you trust the file:  {printable(line)}"


def _name(found: ForeignGlobal) -> str:
    return printable(excerpt(found.name, _LONG_NAME))


def foreign_data(foreign: Sequence[ForeignGlobal]) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "foreign_globals": [asdict(found) for found in foreign],
        "add_safe_globals": safe_globals(found.name for found in foreign),
    }


def audited_data(audited: "Sequence[Audited]") -> list[dict[str, Any]]:
    """The verdicts for JSON."""
    return [
        {
            **fields(one, "name", "harmless", "reason"),
            "foreign_globals": [asdict(found) for found in one.foreign],
        }
        for one in audited
    ]

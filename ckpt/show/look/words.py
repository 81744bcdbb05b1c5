"""Numbers, sizes and foreign text in a form for people."""

import re
from collections.abc import Mapping, Sequence

# Characters without ink that Unicode calls letters or marks (Default_Ignorable_Code_Point): two
# keys that differ only in these look the same.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)

_NAMED = 5  # names in a remark


def printable(text: str) -> str:
    r"""Text from a file or a person, safe for a terminal: ESC becomes ``\x1b``.

    Escapes controls, line separators, surrogates, and what is invisible or changes the writing
    direction (Unicode TR 36, bidirectional text spoofing). Law: printable text stays as it is.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _has_ink(char) else _escape(ord(char)) for char in text)


def _has_ink(char: str) -> bool:
    return char.isprintable() and not _INVISIBLE.match(char)


def _escape(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def size(nbytes: int) -> str:
    """``2.4 MB``; MB of 10^6 bytes."""
    value = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{nbytes} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def count(number: int, noun: str) -> str:
    """``1 key``, ``4 keys``, ``1,200 keys``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def shape(dimensions: Sequence[int]) -> str:
    """``64 32 3 3``; a scalar is ``()``."""
    return " ".join(map(str, dimensions)) or "()"


def metric(name: str, value: float) -> str:
    """``99.21%`` for an accuracy, six digits for other metrics."""
    return f"{value:.2%}" if name == "accuracy" else f"{value:.6g}"


def metrics(values: Mapping[str, float]) -> str:
    """``accuracy 99.21%  loss 0.0271``."""
    return "  ".join(f"{printable(name)} {metric(name, value)}" for name, value in values.items())


def first_names(names: Sequence[str]) -> str:
    """``a, b, c, d, e and 3 more``."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(map(printable, names[:_NAMED])) + more


def tied_text(tied: Mapping[str, str]) -> str | None:
    """``head.weight is stored once, as embed.weight``, if there are tied names."""
    if not tied:
        return None
    verb = "is" if len(tied) == 1 else "are"
    kept = list(dict.fromkeys(tied.values()))
    return f"{first_names([*tied])} {verb} stored once, as {first_names(kept)}"


def tied_data(tied: Mapping[str, str]) -> list[dict[str, str]]:
    """The same for JSON."""
    return [{"key": key, "other": other} for key, other in tied.items()]

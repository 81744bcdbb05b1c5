"""Numbers, sizes and foreign text in a form for people."""

import re
from collections.abc import Mapping, Sequence

# C0 and C1 controls, DEL, line and paragraph separators, surrogates, and the characters
# that change the writing direction (Unicode TR 36, bidirectional text spoofing).
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Text from a file or a person, safe for a terminal: ESC becomes ``\x1b``."""
    if text.isascii() and text.isprintable():
        return text
    return _UNPRINTABLE.sub(lambda match: _escape(ord(match[0])), text)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


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

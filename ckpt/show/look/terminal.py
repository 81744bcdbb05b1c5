"""The terminal: output in the encoding, width and colour that it supports.

Law: whatever a view prints, only printable text, line feeds and our own colours reach a stream, and
no cell of a table and no line of `lines` can begin a line of its own.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from os import fspath
from typing import TextIO

from ckpt.show.look.words import printable

# Replacements for symbols that the terminal's encoding lacks.
_ASCII = str.maketrans(
    {
        "·": "-",
        "×": "x",
        "…": "...",
        "→": "->",
        "█": "#",
        "─": "-",
        **dict(zip("▁▂▃▄▅▆▇", "_.:-=+*", strict=True)),
    }
)
NARROWEST = 16  # columns; a key folded into fewer is unreadable
# From this many rows on, tabulate lays out only the widest cells: it takes 17 µs per row, which
# would double the time of `ckpt show` for 100,000 keys.
_MANY_ROWS = 1000
_COLOURS = {"red": "31", "green": "32", "yellow": "33"}
_PAINT = re.compile(r"(\x1b\[(?:0|31|32|33)m)")


class Terminal:
    """Prints results to `out`, remarks and progress, unless `quiet`, and errors to `err`.

    Args:
        out: stdout by default.
        err: stderr by default.
        quiet: Whether remarks are left out.
        colour: Whether there is colour; None if each stream and the environment decide.
        wide: Whether nothing is folded or cut, as in a pipe.
        pages: Whether a result that is longer than the screen goes through a pager.
    """

    def __init__(
        self,
        *,
        out: TextIO | None = None,
        err: TextIO | None = None,
        quiet: bool = False,
        colour: bool | None = None,
        wide: bool = False,
        pages: bool = False,
    ) -> None:
        self.out = out or sys.stdout
        self.err = err or sys.stderr
        self.quiet = quiet
        self._colour = colour
        self._wide = wide
        self._pages = pages

    def result(self, text: str, *, verbatim: bool = False) -> None:
        """Print a result, folded to the width of a terminal, or show it in a pager.

        Args:
            text: The result.
            verbatim: Whether it is in a language, such as Markdown, in which line feeds and
                spaces have a meaning, so that nothing is folded.
        """
        width = self.width
        if width is not None and not verbatim:
            text = "\n".join(folded(text.split("\n"), width))
        if not self._paged(text):
            self._write(self.out, text)

    def lines(self, lines: Iterable[str]) -> None:
        """Print a result whose lines contain text from files."""
        self.result("\n".join(map(printable, lines)))

    def data(self, document: object) -> None:
        """Print a result as JSON: ASCII, no bare NaN, paths as text."""
        import json  # --version, --help and most results go without

        from ckpt.io.documents.strict_json import plain

        self._write(
            self.out, json.dumps(plain(document), indent=2, allow_nan=False, default=fspath)
        )

    def remark(self, text: str) -> None:
        """Print a remark, unless quiet."""
        if not self.quiet:
            self._write(self.err, text)

    def error(self, message: str, hint: str | None = None) -> None:
        """Print an error in one line, and the hint below it."""
        from ckpt.refs import without_secrets  # most commands print no error

        one_line = printable(without_secrets(message))
        self._write(self.err, f"{self._label('error:', 'red')} {one_line}")
        if hint:
            lines = without_secrets(hint).split("\n")
            self._write(self.err, f"{self._label('hint:', 'yellow')}  {printable(lines[0])}")
            for line in lines[1:]:
                self._write(self.err, f"       {printable(line)}")

    @property
    def width(self) -> int | None:
        """Columns of the terminal; None where nothing is folded: in a pipe, and if `wide`."""
        if self._wide or not self.out.isatty():
            return None
        from shutil import get_terminal_size

        return get_terminal_size().columns

    @property
    def coloured(self) -> bool:
        """Whether results have colours."""
        return self._coloured(self.out)

    def _coloured(self, stream: TextIO) -> bool:
        """As asked; else if `NO_COLOR` is not set, and the stream is a terminal that is not dumb.

        `FORCE_COLOR` stands for such a terminal, as in a CI that shows colours.
        """
        if self._colour is not None:
            return self._colour
        if os.environ.get("NO_COLOR"):
            return False
        is_terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        return is_terminal or bool(os.environ.get("FORCE_COLOR"))

    def _label(self, word: str, colour: str) -> str:
        return painted(word, colour) if self._coloured(self.err) else word

    def _paged(self, text: str) -> bool:
        if not self._pages or self.quiet or not (self.out.isatty() and sys.stdin.isatty()):
            return False
        from ckpt.show.look.pager import paged

        return paged(self._safe(self.out, text), self.out.encoding, sideways=self._wide)

    def _write(self, stream: TextIO, text: str) -> None:
        stream.write(self._safe(stream, text) + "\n")
        stream.flush()

    def _safe(self, stream: TextIO, text: str) -> str:
        """The text as this stream can show it."""
        safe = _printable_but_paint if self._coloured(stream) else printable
        text = "\n".join(map(safe, text.split("\n")))
        encoding = stream.encoding or "utf-8"
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            text = text.translate(_ASCII).encode(encoding, "backslashreplace").decode(encoding)
        return text


def painted(word: str, colour: str) -> str:
    """A word in a colour."""
    return f"\x1b[{_COLOURS[colour]}m{word}\x1b[0m"


def folded(lines: Iterable[str], width: int) -> Iterator[str]:
    """The lines in at most `width` columns; what is there to be copied stays in one line."""
    for line in lines:
        # A command or an option that is there to be copied; also the rule below a table's head.
        is_one = len(line) <= width or "  ckpt " in line or "  --" in line
        if is_one or (shown := len(_PAINT.sub("", line))) <= width:
            yield line
            continue
        from textwrap import wrap

        further = " " * (len(line) - len(line.lstrip()) + 4)
        yield from wrap(
            line, width + len(line) - shown, subsequent_indent=further,
            break_on_hyphens=False, replace_whitespace=False,
        )  # fmt: skip


def _printable_but_paint(line: str) -> str:
    if line.isascii() and line.isprintable():
        return line
    parts = _PAINT.split(line)
    parts[::2] = map(printable, parts[::2])
    return "".join(parts)


def table(
    rows: Sequence[Sequence[object]],
    headers: Sequence[str],
    *,
    right: Sequence[str] = (),
    width: int | None = None,
) -> str:
    """A table by `tabulate`.

    The columns of the headers in `right` are aligned to the right. Text in cells may come from
    files. A table wider than `width` columns folds its widest ones. A column without a header
    and without a text is left out.
    """
    from tabulate import tabulate

    cells = [[str(cell) for cell in row] for row in rows]
    ascii_only = _is_plain_ascii(cells)
    if not ascii_only:
        cells = [[*map(printable, row)] for row in cells]
        ascii_only = _is_plain_ascii(cells)
    shown = [at for at, head in enumerate(headers) if head or any(row[at] for row in cells)]
    if len(shown) < len(headers):
        cells = [[row[at] for at in shown] for row in cells]
    headers = [printable(headers[at]) for at in shown]
    right = [*map(printable, right)]
    align = ["right" if header in right else "left" for header in headers]
    folds: list[int | None] = [None] * len(headers)
    if width is not None and cells:
        heads = [header + "  " for header in headers]
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        narrow = _narrow(widths, width - 2 * (len(headers) - 1))
        folds = [each if each < wide else None for each, wide in zip(narrow, widths, strict=True)]

    def tabulated(cells: list[list[str]]) -> str:
        heads = [(each or sys.maxsize) - 2 for each in folds]  # tabulate pads them
        return tabulate(
            cells, headers, colalign=align, disable_numparse=True, maxcolwidths=folds,
            maxheadercolwidths=heads,
        )  # fmt: skip

    quick = len(cells) >= _MANY_ROWS and not any(folds) and ascii_only
    text = _by_widest(cells, align, tabulated) if quick else tabulated(cells)
    return "\n".join(line.rstrip() for line in text.splitlines())


def _narrow(widths: Sequence[int], room: int) -> list[int]:
    """The widths of the columns in that room: the widest ones get less, as even as can be."""
    for most in range(min(max(widths), room), NARROWEST, -1):
        if sum(min(each, most) for each in widths) <= room:
            return [min(each, most) for each in widths]
    return [min(each, NARROWEST) for each in widths]


def _by_widest(
    cells: list[list[str]], align: list[str], tabulated: Callable[[list[list[str]]], str]
) -> str:
    """The table that `tabulated` would make, which gets only the widest cell of each column.

    Its rule, ``---  -----``, gives the widths of the columns.
    """
    cells = [[cell.strip() for cell in row] for row in cells]
    widest = [max(column, key=len) for column in zip(*cells, strict=True)]
    head, rule, *_ = tabulated([widest]).splitlines()
    signs = ["" if side == "right" else "-" for side in align]
    row_format = "  ".join(
        f"%{sign}{len(dashes)}s" for sign, dashes in zip(signs, rule.split(), strict=True)
    )
    return "\n".join([head, rule, *((row_format % tuple(row)).rstrip() for row in cells)])


def _is_plain_ascii(cells: list[list[str]]) -> bool:
    """Whether every character takes one column, and none is a control code."""
    text = "".join(chain.from_iterable(cells))
    return text.isascii() and text.isprintable()

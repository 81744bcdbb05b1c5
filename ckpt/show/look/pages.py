"""Reports as Markdown, for a pull request, and as one self-contained page of HTML.

Law: no text of a report acts as markup, whatever it contains.
"""

import html
import re
from collections.abc import Sequence

from ckpt.show.look.tables import Report, Table
from ckpt.show.look.words import printable

# The page runs no script and loads nothing.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em;
  color-scheme: light dark; }}
h1 {{ font-size: 1.3em; overflow-wrap: anywhere; }}
table {{ border-collapse: collapse; margin: 1.5em 0; font-family: ui-monospace, monospace;
  font-size: 13px; }}
th, td {{ padding: .3em 1em .3em 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #8884; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>"""


def markdown(report: Report) -> str:
    """Markdown with GitHub's tables."""
    parts = [f"### {_marked(report.answer)}", *map(_markdown_table, report.tables)]
    parts += [_markdown_note(note.strip()) for note in report.notes if note]
    return "\n\n".join(parts)


def page(report: Report) -> str:
    """One page of HTML that includes its style."""
    notes = [f"<p>{html.escape(printable(note.strip()))}</p>" for note in report.notes if note]
    body = "\n".join([*map(_html_table, report.tables), *notes])
    return _PAGE.format(title=html.escape(printable(report.answer)), body=body)


def _markdown_table(table: Table) -> str:
    rows = [[_marked(cell) for cell in row] for row in table.rows]
    return _tabulated(table, rows, [_marked(head) for head in table.heads], "pipe")


def _html_table(table: Table) -> str:
    rows = [[*map(printable, row)] for row in table.rows]
    return _tabulated(table, rows, [*map(printable, table.heads)], "html")


def _tabulated(table: Table, rows: Sequence[Sequence[str]], heads: Sequence[str], form: str) -> str:
    from tabulate import tabulate

    align = ["right" if head in table.right else "left" for head in table.heads]
    return tabulate(rows, heads, tablefmt=form, colalign=align, disable_numparse=True)


def _markdown_note(note: str) -> str:
    """A remark; a command in it becomes a block of code, in which nothing is markup."""
    text, mark, command = note.partition("  ckpt ")
    return f"{_marked(text)}\n\n    ckpt {command}" if mark else _marked(note)


def _marked(text: str) -> str:
    """Text without active markup (CommonMark, 2.4: any punctuation may be escaped)."""
    return re.sub(r"([\\`*_{}\[\]<>|#~&!])", r"\\\1", printable(text))

"""Results as Python shows them: `str` is what the command prints, `repr` its first line.

Law: the view that prints a result belongs to the command, and is imported when it is first printed.
"""

from importlib import import_module
from typing import ClassVar


class Printed:
    """A value with a view.

    Attributes:
        VIEW: The function that gives its text, ``ckpt.show.diff:diff_text``.
    """

    __slots__ = ()
    VIEW: ClassVar[str]

    def __str__(self) -> str:
        return _text(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._brief()}>"

    def _brief(self) -> str:
        """What it is, in one line."""
        return _text(self).strip().partition("\n")[0]

    def _repr_html_(self) -> str:
        """The text for a notebook, which shows it in one font."""
        from html import escape

        return f"<pre>{escape(_text(self))}</pre>"


def _text(value: Printed) -> str:
    module, _, name = value.VIEW.partition(":")
    text = getattr(import_module(module), name)(value)
    printable = import_module("ckpt.show.look.words").printable
    return "\n".join(map(printable, text.split("\n")))

r"""Arithmetic on the numbers of a match: ``{(\1-1)//3}`` in the NEW of a rule.

Groups are ``\1``; the operators are ``+ - * // %`` and parentheses, on whole numbers.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence

from ckpt.errors import RuleError

MOST_DIGITS = 18  # of a number in a key

_ALLOWED = re.compile(r"(?:\\\d{1,2}|\d{1,9}|//|[-+*%() ])+")
_GROUP = re.compile(r"\\(\d{1,2})")
_OPERATORS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


class Formula:
    r"""An expression in whole numbers.

    Args:
        text: Without the braces, e.g. ``(\1-1)//3``.

    Raises:
        RuleError: It is not such an expression.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self.groups = [int(group) for group in _GROUP.findall(text)]
        try:
            if not _ALLOWED.fullmatch(text):
                raise SyntaxError
            # A group may have leading zeros as a number of a key has, but not as one of Python.
            named = _GROUP.sub(lambda found: f"_{int(found[1])}", text.strip())
            self._tree = ast.parse(named, mode="eval").body
            self._value(self._tree, {f"_{group}": 1 for group in self.groups})
        except ZeroDivisionError:
            pass  # for these numbers
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise RuleError(
                f"{{{text:.80}}} is not a formula", hint=r"a formula is like {(\1-1)//3} or {\1%3}"
            ) from error

    def of(self, digits: Sequence[str]) -> str:
        """Its value for the text of every group in `groups`.

        Raises:
            RuleError: A group is not a number, or the value is not an index.
        """
        for text in digits:
            if not text.isdecimal() or len(text) > MOST_DIGITS:
                raise RuleError(f"does arithmetic on {text!r:.80}, which is not a number")
        numbers = map(int, digits)
        values = {f"_{n}": value for n, value in zip(self.groups, numbers, strict=True)}
        try:
            result = self._value(self._tree, values)
        except ZeroDivisionError:
            raise RuleError(f"divides by zero in {{{self._text}}}") from None
        if not 0 <= result < 10**MOST_DIGITS:
            what = "a negative index" if result < 0 else f"a number of over {MOST_DIGITS} digits"
            raise RuleError(f"turns {' and '.join(digits)} into {what}")
        return str(result)

    def _value(self, tree: ast.expr, values: Mapping[str, int]) -> int:
        match tree:
            case ast.Constant(value=int() as number):
                return number
            case ast.Name(id=name):
                return values[name]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](self._value(left, values), self._value(right, values))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._value(operand, values)
        raise SyntaxError

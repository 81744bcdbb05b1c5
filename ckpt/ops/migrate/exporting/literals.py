"""Values as Python source, spelled as ruff's formatter spells them."""

import ast
import re
from collections.abc import Iterable

from ckpt.errors import UsageError
from ckpt.rules.at_once import AtOnce
from ckpt.rules.substitution import RenameRule

_PART = re.compile(
    r"\\(?P<group>\d{1,2})|\\g<(?P<name>\w+)>|\{(?P<formula>[^{}]+)\}|(?P<text>[^\\{]+)"
)
_PLAIN = re.compile(r"\d{1,2}")
_SUM = re.compile(r"(-?)(\d{1,2})([+-]\d{1,9})?")


class ExportError(UsageError):
    """A target cannot express a rule."""

    exit_code = 3


def quoted(text: str) -> str:
    """A string literal; raw if that spares backslashes."""
    quote = "'" if '"' in text and "'" not in text else '"'
    if "\\" in text and quote not in text and text.isprintable() and not text.endswith("\\"):
        return f"r{quote}{text}{quote}"
    escaped = text.replace("\\", "\\\\").replace(quote, f"\\{quote}")
    shown = "".join(it if it.isprintable() else _escape(it) for it in escaped)
    return f"{quote}{shown}{quote}"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def sentence(text: str) -> str:
    """Text of a person on one line, fit for a docstring."""
    line = " ".join(text.split()).replace("\\", "/").replace('"', "'")
    line = "".join(it for it in line if it.isprintable())
    return line if line.endswith((".", "!", "?")) else f"{line}."


def exploded(name: str, arguments: Iterable[str], indent: str, end: str = ")") -> str:
    """A call or list with a line for each item, which ruff leaves so at any length of lines."""
    items = [f"{indent}    {it},\n" for it in arguments]
    return f"{name}\n{''.join(items)}{indent}{end}" if items else f"{name}{end}"


def pattern_of(rule: RenameRule) -> str:
    """The regular expression of a rule's OLD, for Python's own `re`.

    Raises:
        ExportError: It has what `re` lacks.
    """
    try:
        re.compile(rule.expression)
    except (re.error, OverflowError, RecursionError) as error:
        raise ExportError(
            f"rule '{rule.text}': Python's re cannot run its pattern: {error}"
        ) from error
    return rule.expression


def plain_template(rule: RenameRule) -> str | None:
    """A rule's NEW as a template of `re.sub`; None if it does arithmetic."""
    if rule.literal:
        return rule.new.replace("\\", "\\\\")
    made = ""
    for part in _PART.finditer(rule.new):
        if part["text"]:
            made += part["text"]
            continue
        group = part["group"] or part["name"] or part["formula"]
        if part["formula"] and not _PLAIN.fullmatch(group):
            return None
        followed = rule.new[part.end() : part.end() + 1].isdigit()
        short = group.isdigit() and not followed
        made += f"\\{int(group)}" if short else f"\\g<{group}>"
    return made


def replacement(rule: RenameRule) -> str:
    """A rule's NEW as source: a template of `re.sub`, or a function of the match."""
    template = plain_template(rule)
    return quoted(template) if template is not None else f"lambda m: f{_formatted(rule.new)}"


def _formatted(new: str) -> str:
    """The literal of an f-string over the match `m`."""
    made = ""
    for part in _PART.finditer(new):
        if part["text"]:
            made += part["text"].replace('"', '\\"')
        elif part["formula"]:
            made += f"{{{_arithmetic(part['formula'])}}}"
        else:
            name = part["group"] or part["name"]
            made += f"{{m[{name if name.isdigit() else repr(name)}]}}"
    return f'"{made}"'


def _arithmetic(formula: str) -> str:
    r"""``1+1`` or ``(\1-1)//3`` as an expression over the match `m`."""
    if _PLAIN.fullmatch(formula):
        return f"m[{int(formula)}]"
    if simple := _SUM.fullmatch(formula):
        formula = f"{simple[1]}\\{simple[2]}{simple[3] or ''}"
    source = re.sub(r"\\(\d{1,2})", lambda group: f"int(m[{int(group[1])}])", formula.strip())
    return ast.unparse(ast.parse(source, mode="eval"))


def pairs_of(rule: AtOnce) -> list[tuple[str, str]]:
    """Pattern and replacement of each rule of a group, as source."""
    return [(quoted(pattern_of(it)), replacement(it)) for it in rule.rules]

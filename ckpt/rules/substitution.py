r"""Rename rules: one instruction each, `OLD->NEW`, and how it changes one key.

OLD is a Python regular expression, substituted everywhere it matches in the key; in NEW,
``\1`` or ``{1}`` is a group, ``{1+1}`` is its number plus one, and ``{(\1-1)//3}`` a formula.
`OLD=NEW` means the same and needs no quotes in a shell. Only the matched span changes.
No file, no tensor, no torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import regex

from ckpt.errors import PlanError, RuleError
from ckpt.rules.formulas import MOST_DIGITS, Formula
from ckpt.rules.patterns import Match, Pattern
from ckpt.rules.planned import Planned, Renaming, with_keys

KEY_CHARACTERS = 65_536  # a longer result is an error: no model has such a key

_ARROW = regex.compile(r"=>|->")
# An equals sign that is not part of a lookaround, `(?=…)` or `(?<=…)`.
_EQUALS = regex.compile(r"(?<!\(\?)(?<!\(\?<)=")
_PART = regex.compile(
    r"\\(?P<group>\d{1,2})"
    r"|\\g<(?P<name>\w+)>"
    r"|\{(?P<minus>-?)(?P<number>\d{1,2})(?P<plus>[+-]\d{1,9})?\}"
    r"|\{(?P<formula>[^{}]*\\\d[^{}]*)\}"
    r"|(?P<odd>[\\{}])"
    r"|(?P<literal>[^\\{}]+)"
)

_DOLLAR = regex.compile(r"\$(?P<brace>\{)?(?P<group>[1-9]\d?)(?(brace)\})")


@dataclass(frozen=True, slots=True)
class RenameRule(Renaming):
    """One rule, ready to run.

    Attributes:
        text: The rule as it was typed, for messages and for the record.
        old: The part before the arrow.
        new: The part after it.
        literal: Whether both are literal text.
        word: Whether only whole dotted parts match.
    """

    text: str
    old: str
    new: str
    _pattern: Pattern = field(repr=False, compare=False)
    _parts: tuple[Callable[[Match], str], ...] = field(repr=False, compare=False)
    literal: bool = False
    word: bool = False

    @property
    def expression(self) -> str:
        """The regular expression that finds OLD."""
        return self._pattern.source

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        after = with_keys(tensors, self.apply)
        changed = [new.key for old, new in zip(tensors, after, strict=True) if old is not new]
        before = [old.key for old, new in zip(tensors, after, strict=True) if old is not new]
        if changed and all(map(self.is_applied, before)):
            raise PlanError(
                f"rule '{self.text}' was already applied: {before[0]} would become {changed[0]}",
                hint="--map FILE renames keys anyway",
            )
        return after

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        return None if changed else self.old

    def apply(self, key: str) -> str:
        if not self._pattern.may_match(key):
            return key
        made = 0

        def expand(match: Match) -> str:
            nonlocal made
            part = self.expand(match)
            made += len(part)
            expect_length(made, self.text)
            return part

        return self._pattern.sub(expand, key)

    def search(self, key: str, position: int = 0) -> Match | None:
        """The first match at `position` or after it.

        Raises:
            RuleError: The pattern ran too long.
        """
        return self._pattern.search(key, position)

    def expand(self, match: Match) -> str:
        """The replacement of a match."""
        return "".join(part(match) for part in self._parts)

    def is_applied(self, key: str) -> bool:
        """Whether every match is already inside its own replacement.

        E.g. `layers` in ``encoder.layers.0``, for the rule `layers->encoder.layers`.
        """
        position = 0
        while (match := self.search(key, position)) is not None:
            new, at = self.expand(match), match.start()
            inside = new.find(match[0])
            if inside < 0 or at < inside or not key.startswith(new, at - inside):
                return False
            position = max(match.end(), position + 1)
        return True


def expect_length(letters: int, text: str) -> None:
    """Refuse a key that is too long, while it is being made.

    Raises:
        RuleError: It is too long.
    """
    if letters > KEY_CHARACTERS:
        raise RuleError(f"rule '{text:.200}' makes a key of over {KEY_CHARACTERS:,} characters")


def parse_rule(text: str, *, literal: bool = False, word: bool = False) -> RenameRule:
    r"""Read one rule as it is typed: `OLD->NEW` or `OLD=NEW`.

    Args:
        text: E.g. ``conv->embed`` or ``layers.(\d+)->blocks.{1+1}``.
        literal: OLD and NEW are literal text.
        word: Match whole dotted parts only, with their trailing number: `conv` then
            matches in ``conv1.weight`` and not in ``deconv1.weight``.

    Raises:
        RuleError: The rule has no arrow or an empty side, or its pattern is invalid.
    """
    old, new = _split(text)
    source = regex.escape(old) if literal else old
    if word:
        source = rf"(?<![^.])(?:{source})(?=\d*(?:\.|$))"
    pattern = Pattern(
        source, name=f"rule '{text:.200}'", shown=old, hint="-F treats it as literal text"
    )
    parts = (partial(_constant, new),) if literal else _replacement(text, new, pattern)
    return RenameRule(text, old, new, pattern, parts, literal, word)


def _split(text: str) -> tuple[str, str]:
    arrows = list(_ARROW.finditer(text)) or list(_EQUALS.finditer(text))
    if not arrows:
        raise RuleError(f"rule '{text}' has no arrow", hint="write OLD->NEW in quotes, or OLD=NEW")
    if len(arrows) > 1:
        raise RuleError(f"rule '{text}' has {len(arrows)} arrows", hint="write one --rule per rule")
    old, new = text[: arrows[0].start()], text[arrows[0].end() :]
    if not old:
        raise RuleError(f"rule '{text}' has nothing before the arrow")
    if not new:
        raise RuleError(
            f"rule '{text}' has nothing after the arrow",
            hint="--strip PREFIX removes a prefix, --drop REGEX drops tensors",
        )
    return old, new


def _replacement(text: str, new: str, pattern: Pattern) -> tuple[Callable[[Match], str], ...]:
    _expect_no_dollar(text, new, pattern)
    parts: list[Callable[[Match], str]] = []
    for part in _PART.finditer(new):
        if part["literal"]:
            parts.append(partial(_constant, part["literal"]))
        elif part["odd"]:
            raise RuleError(
                f"rule '{text}': {part['odd']!r} in '{new}' does not begin a group",
                hint=r"groups are \1 or {1}, arithmetic is {1+1} or {\1//3}; "
                "-F treats NEW as literal text",
            )
        elif part["formula"]:
            parts.append(_formula(text, part["formula"], pattern))
        elif part["number"]:
            group = _known_group(text, int(part["number"]), pattern)
            sign = -1 if part["minus"] else 1
            if sign == 1 and not part["plus"]:
                parts.append(partial(_group, group))
            else:
                parts.append(partial(_sum, text, group, sign, int(part["plus"] or 0)))
        else:
            name = part["name"] or int(part["group"])
            parts.append(partial(_group, _known_group(text, name, pattern)))
    return tuple(parts)


def _expect_no_dollar(text: str, new: str, pattern: Pattern) -> None:
    """Refuse `$1`, which is a group in other languages and text here."""
    found = _DOLLAR.search(new)
    if found is None or int(found["group"]) > pattern.groups:
        return
    meant = _DOLLAR.sub(lambda match: rf"\{match['group']}", new)
    raise RuleError(
        f"rule '{text}': '{found[0]}' in '{new}' is not a group",
        hint=rf"write \{found['group']} or {{{found['group']}}}:  {meant}",
    )


def _formula(text: str, formula: str, pattern: Pattern) -> Callable[[Match], str]:
    try:
        read = Formula(formula)
    except RuleError as error:
        raise RuleError(f"rule '{text}': {error}", hint=error.hint) from None
    groups = [_known_group(text, group, pattern) for group in read.groups]

    def expand(match: Match) -> str:
        try:
            return read.of([match[group] or "" for group in groups])
        except RuleError as error:
            raise RuleError(f"rule '{text}' {error}") from None

    return expand


def _known_group(text: str, group: int | str, pattern: Pattern) -> int:
    if isinstance(group, str):
        named = pattern.group(group)
        number = named or (int(group) if group.isdecimal() and len(group) < 4 else -1)
    else:
        number = group
    if not 1 <= number <= pattern.groups:
        raise RuleError(
            f"rule '{text}' uses group {group}, its pattern has {pattern.groups}",
            hint=r"put parentheses around the group, e.g. layers\.(\d+)",
        )
    return number


def _constant(text: str, _match: Match) -> str:
    return text


def _group(group: int, match: Match) -> str:
    return match[group] or ""


def _sum(text: str, group: int, sign: int, addend: int, match: Match) -> str:
    digits = match[group] or ""
    if not digits.isdecimal() or len(digits) > MOST_DIGITS:
        raise RuleError(f"rule '{text}' does arithmetic on {digits!r:.80}, which is not a number")
    result = sign * int(digits) + addend
    if result < 0:
        raise RuleError(f"rule '{text}' turns {digits} into {result}; an index cannot be negative")
    return str(result)

"""An alternative as rules: readable ones first, each tried on the keys that it meets."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ckpt.errors import CkptError
from ckpt.prove.alternatives import order_of
from ckpt.prove.result import Alternative
from ckpt.rules.at_once import parse_typed
from ckpt.rules.document import read_rules
from ckpt.rules.planned import Rule

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


def spelled(
    alternative: Alternative,
    names: Mapping[str, str],
    keys: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
) -> Iterator[list[Rule]]:
    """Rules that do what the alternative says, the most readable first.

    Args:
        alternative: In the keys of the result.
        names: By key of the result, the key that the rules meet.
        keys: All keys that the rules meet.
        shapes: By key of the result, the shape of its tensor.
    """
    if alternative.moves:
        wanted = {names[old]: names[new] for new, old in alternative.moves.items()}
        for text in _texts(wanted):
            if rule := _renaming(text, wanted, keys):
                yield [rule]
        yield read_rules([{"map": wanted}], name="the answer")
        return
    by_rest: dict[tuple[int, ...], list[str]] = {}
    for key in alternative.keys:
        by_rest.setdefault(shapes[key][1:], []).append(names[key])
    tables = [
        table
        for rest, found in by_rest.items()
        for table in _tables(alternative, expression_for(found, keys), rest)
    ]
    yield read_rules(tables, name="the answer")


def expression_for(wanted: Sequence[str], keys: Iterable[str]) -> str:
    """A regular expression that matches these keys as a whole, and none of the others."""
    templates = dict.fromkeys(
        _NUMBER.sub("\0", key).replace(".", r"\.").replace("\0", r"\d+") for key in wanted
    )
    for choices in (templates, dict.fromkeys(map(re.escape, wanted))):
        text = "|".join(choices)
        pattern = f"^{text}$" if len(choices) == 1 else f"^(?:{text})$"
        if {key for key in keys if re.search(pattern, key)} == {*wanted}:
            break
    return pattern


def _texts(wanted: Mapping[str, str]) -> Iterator[str]:
    """Rules that may give these names, shortest first."""
    old, new = next(iter(wanted.items()))
    a, b = old.split("."), new.split(".")
    apart = [at for at, (one, two) in enumerate(zip(a, b, strict=False)) if one != two]
    if len(a) != len(b) or len(apart) != 1:
        return
    at = apart[0]
    if len(wanted) > 2 and a[at].isdecimal() and b[at].isdecimal():
        prefix = re.escape(".".join([*a[:at], ""]))
        numbers = [int(key.split(".")[at]) for key in wanted if key.split(".")[:at] == a[:at]]
        if prefix:
            yield rf"{prefix}(\d+)->{'.'.join([*a[:at], ''])}{{-1+{max(numbers)}}}"
    for start in range(at, -1, -1):
        for end in (at + 1, len(a)):
            yield "<->".join(".".join(parts[start:end]) for parts in (a, b))


def _renaming(text: str, wanted: Mapping[str, str], keys: Iterable[str]) -> Rule | None:
    """The rule, if it renames these keys and no others."""
    try:
        rule = parse_typed(text)
        moved = {key: rule.apply(key) for key in keys}
    except CkptError:  # not a rule, or not one for these keys
        return None
    return rule if {k: it for k, it in moved.items() if it != k} == dict(wanted) else None


def _tables(
    alternative: Alternative, pattern: str, rest: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """The operation on the tensors that a pattern matches; `rest` are their other sizes."""
    verb, size = alternative.verb, alternative.size
    if verb == "transpose":
        yield {"transpose": pattern}
    elif verb in ("halves", "thirds"):
        order = order_of(verb, size)
        inner = f"^({pattern.removeprefix('^').removesuffix('$')})"
        yield {"split": f"{inner}$", "into": [rf"\1.part{at}" for at in range(len(order))]}
        yield {"concat": [rf"{inner}\.part{at}$" for at in order], "into": r"\1"}
    else:
        rows = (2, size // 2) if verb == "interleave" else (size // 2, 2)
        yield {"reshape": pattern, "shape": [-1, *rows, *rest]}
        yield {"permute": pattern, "dims": [0, 2, 1, *range(3, 3 + len(rest))]}
        yield {"reshape": pattern, "shape": [-1, *rest]}

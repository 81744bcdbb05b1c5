"""Express a mapping as few readable rules, and prove them by applying them.

Drops come first, then operations, then renames. Law: the rules, applied to the source by
`plan_tensors`, give every tensor its key and its elements as the inference has them.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ckpt.errors import CkptError, RuleError
from ckpt.infer.result import Inference
from ckpt.infer.rules.covering import patterns_for
from ckpt.infer.rules.meaning import made_by, meaning
from ckpt.infer.rules.operating import KEEP_KEYS, tables_for, tables_one_by_one
from ckpt.infer.rules.renaming import rename_rules
from ckpt.infer.rules.stacking import renames_of
from ckpt.rules.at_once import AtOnce
from ckpt.rules.choice import drop
from ckpt.rules.document import read_rules, rules_document
from ckpt.rules.key_map import KeyMap
from ckpt.rules.plan import plan_tensors
from ckpt.rules.planned import Rule
from ckpt.tensors import TensorEntry

MOST_READABLE = 40  # rules; beyond, a map may be easier to read
_LINES_OF_A_RULE = 4  # of a map, which are as hard to read

Pairs = list[tuple[str, str]]


def synthesise(
    source: Sequence[TensorEntry], target: Sequence[TensorEntry], inference: Inference
) -> list[Rule]:
    """The rules of an inference, which include its guesses for ambiguous keys.

    None if nothing has a place in the target: rules cannot drop all tensors.

    Args:
        source: The source of the inference.
        target: The target of the inference.
        inference: The mapping.

    Raises:
        RuleError: Its operations do not fit the tensors.
    """
    if not inference.matches and not inference.operations:
        return []
    keys = [entry.key for entry in source]
    dropped = {*inference.dropped}
    kept = [key for key in keys if key not in dropped]
    drops: list[Rule] = [drop(pattern) for pattern in patterns_for(inference.dropped, kept)]
    shapes = {entry.key: entry.shape for entry in target}
    pairs = _renames(inference)
    operations = tables_for(inference, kept, shapes)
    for renames in _guesses(pairs):
        rules = [*drops, *_read(operations), *renames]
        if proves(source, target, rules, inference):
            return rules
    mark = _mark([*keys, *shapes])
    rules = [*drops, *_read(tables_one_by_one(inference, kept, shapes, mark))]
    rules.append(KeyMap("map", dict(_renames(inference, mark))))
    if not proves(source, target, rules, inference):
        raise RuleError("the operations of this mapping do not fit the tensors")
    return rules


def _read(tables: Sequence[dict[str, Any]]) -> list[Rule]:
    return read_rules([*tables], name="the operations") if tables else []


def _guesses(pairs: Pairs) -> Iterator[list[Rule]]:
    """Lists of rules that may rename the pairs: a few rules, else a map, of modules if possible.

    None if two tensors have the same old key: operations gave one of them its name.
    """
    if len(dict(pairs)) < len(pairs):
        return
    yield from _shortest_first(rename_rules(pairs), _map_of_modules(pairs))
    yield [KeyMap("map", dict(pairs))]


def _mark(keys: Iterable[str]) -> str:
    """What no key ends with."""
    mark = "~"
    while any(key.endswith(mark) for key in keys):
        mark += "~"
    return mark


def _map_of_modules(pairs: Pairs) -> list[Rule]:
    """The map with as few lines as whole modules allow."""
    lines: dict[str, str] = {}

    def add(below: Pairs, depth: int) -> None:
        modules: dict[str, Pairs] = {}
        for old, new in below:
            modules.setdefault(".".join(old.split(".")[:depth]), []).append((old, new))
        for module, some in modules.items():
            new = some[0][1].removesuffix(some[0][0][len(module) :])
            if all(pair[1] == new + pair[0][len(module) :] for pair in some) and new:
                lines.update({module: new} if module != new else {})
            else:
                add(some, depth + 1)

    add(pairs, 1)
    return [KeyMap("map", lines)] if lines else []


def count_rules(rules: Sequence[Rule]) -> int:
    """How many rules there are; every rule of a group and every line of a map counts."""
    return sum(
        len(rule.rules)
        if isinstance(rule, AtOnce)
        else len(rule.pairs)
        if isinstance(rule, KeyMap)
        else 1
        for rule in rules
    )


def proves(
    source: Sequence[TensorEntry],
    target: Sequence[TensorEntry],
    rules: Sequence[Rule],
    inference: Inference,
) -> bool:
    """Whether the rules do exactly what the inference says."""
    try:
        plan = plan_tensors(source, rules)
        wanted = made_by(inference, source, {entry.key: entry.shape for entry in target})
    except CkptError:  # the rules do not run, or the operations do not fit the tensors
        return False
    return {tensor.key: meaning(tensor.made_of) for tensor in plan.tensors} == wanted


def _renames(inference: Inference, mark: str = "") -> Pairs:
    """The old and new key of every tensor, after the operations.

    Args:
        inference: The mapping.
        mark: Behind the names that operations give.
    """
    pairs: Pairs = []
    for old, news in inference.renames.items():
        pairs += [(old, news[0])] if len(news) == 1 else [(new + mark, new) for new in news]
    for operation in inference.operations:
        if operation.verb in KEEP_KEYS:
            pairs.append((operation.sources[0], operation.targets[0]))
        elif operation.verb in ("stack", "unstack"):
            pairs += renames_of(operation, mark)
        else:
            pairs += ((new + mark, new) for new in operation.targets)
    return pairs


def _shortest_first(guesses: Iterable[list[Rule]], by_map: list[Rule]) -> Iterator[list[Rule]]:
    """The guesses by their size; none is made after one of a single rule that proves.

    If it takes many rules, a map is easier to read, unless it is far longer.
    """
    longer = [by_map] if by_map else []
    for guess in guesses:
        if count_rules(guess) > 1:
            longer.append(guess)
        else:
            yield guess
    yield from sorted(longer, key=_effort)


def _effort(rules: Sequence[Rule]) -> tuple[float, int]:
    """How hard rules are to read."""
    count = count_rules(rules)
    if any(isinstance(rule, KeyMap) for rule in rules):
        return MOST_READABLE + count / _LINES_OF_A_RULE, 0
    return count, sum(len(str(document)) for document in rules_document(rules))

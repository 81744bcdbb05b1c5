"""How well a mapping is inferred: keys right, wrong, ambiguous; operations, questions, rules, time.

    python benchmarks/infer.py [PAIR.json or folder…] [--json] [--digests] [--quick]

A PAIR.json has `source` and `target` (lists of key and shape), the true `pairs` (old key, new
key), `dropped`, `added` and `ops`; a folder means all of them in it. Without any, those of the
tests are taken, with --quick the three smallest. Names and shapes are all that is looked at; with
--digests every tensor also has the digest of its true partner. `reshape`, `squeeze` and
`unsqueeze` count as the same operation if they make the same tensor. Seconds are those of the CPU.
"""

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import process_time
from typing import Any

from quick import parse_options
from tabulate import tabulate

from ckpt.errors import RuleError
from ckpt.infer.engine import infer
from ckpt.infer.questions import doubtful_operations, questions_of
from ckpt.infer.result import Confidence, Inference, InferredOperation
from ckpt.infer.rules.synthesis import count_rules, proves, synthesise
from ckpt.rules.planned import Rule
from ckpt.tensors import TensorEntry

Pair = dict[str, Any]
PAIRS = Path(__file__).resolve().parent.parent / "tests" / "data" / "pairs"


@dataclass
class Score:
    """Of one pair. `right`, `wrong` by confidence; keys of operations are counted apart."""

    name: str
    kind: str
    keys: int
    right: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    stray: int = 0
    operations: int = 0
    operations_right: int = 0
    operations_wrong: int = 0
    questions: int = 0
    rules: int = 0
    exact: bool = False
    seconds: float = 0.0
    rule_seconds: float = 0.0
    wrong_keys: list[tuple[str, str, str | None, str]] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether every key and every operation is right, and nothing ambiguous."""
        return (
            not any(self.wrong.values())
            and not self.right["ambiguous"]
            and not self.lost + self.stray + self.operations_wrong
            and self.operations == self.operations_right
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="*", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--digests", action="store_true")
    options = parse_options(parser)
    paths = [
        path
        for given in options.pairs
        for path in (sorted(given.glob("*.json")) if given.is_dir() else [given])
    ] or pairs_of_the_tests(at_most=3 if options.quick else None)
    documents = [json.loads(path.read_text()) for path in paths]
    for path, document in zip(paths, documents, strict=True):
        document.setdefault("name", path.stem)
    scores = [score(document, digests=options.digests) for document in documents]
    if options.json:
        print(json.dumps([{**asdict(each), "whole": each.whole} for each in scores], indent=1))
    else:
        print(table(scores))


def pairs_of_the_tests(*, at_most: int | None) -> list[Path]:
    """Real conversions, the smallest first."""
    paths = sorted(PAIRS.glob("*.json"), key=lambda path: path.stat().st_size)
    if not paths:
        raise SystemExit(f"{PAIRS}: holds no pairs")
    return paths[:at_most]


def score(pair: Pair, *, digests: bool = False, rules: bool = True) -> Score:
    """Infer the mapping of one pair, and compare it with the true one."""
    source, target = entries_of(pair, digests=digests)
    begin = process_time()
    found = infer(source, target)
    seconds = process_time() - begin
    result = Score(pair["name"], pair.get("kind", ""), len(pair["pairs"]), seconds=seconds)
    _count_keys(result, found, pair)
    _count_operations(result, found, pair)
    result.questions = len(questions_of(found, source, target, _unanswered))
    result.questions += len(doubtful_operations(found))
    if rules:
        begin = process_time()
        made = synthesise(source, target, found)
        result.rule_seconds = process_time() - begin
        result.rules, result.exact = count_rules(made), proves(source, target, made, found)
    return result


def _unanswered(rule: Rule) -> Inference:
    """Try no answer: only the questions count."""
    raise RuleError(f"'{rule.text}' is not tried")


def entries_of(pair: Pair, *, digests: bool) -> tuple[list[TensorEntry], list[TensorEntry]]:
    """Both sides; a shape that is not known is taken as one element."""
    digest_of: dict[str, str] = {}
    if digests:
        operated = {new for operation in pair["ops"] for new in _listed(operation["new"])}
        digest_of = {new: f"sha256:{old}" for old, new, *_ in pair["pairs"] if new not in operated}
    source = [_entry(key, shape, f"sha256:{key}") for key, shape, *_ in pair["source"]]
    target = [
        _entry(key, shape, digest_of.get(key, f"sha256:new {key}"))
        for key, shape, *_ in pair["target"]
    ]
    if digests:
        return source, target
    return [replace(each, digest=None) for each in source], [
        replace(each, digest=None) for each in target
    ]


def _entry(key: str, shape: list[int] | None, digest: str) -> TensorEntry:
    return TensorEntry(key, "float32", (1,) if shape is None else tuple(shape), digest=digest)


def _count_keys(result: Score, found: Inference, pair: Pair) -> None:
    operated = {new for operation in pair["ops"] for new in _listed(operation["new"])}
    truth = {new: old for old, new, *_ in pair["pairs"] if new not in operated}
    right, wrong = Counter[str](), Counter[str]()
    for match in found.matches:
        if truth.get(match.target) == match.source:
            right[match.confidence] += 1
        else:
            wrong[match.confidence] += 1
            result.wrong_keys.append(
                (match.source, match.target, truth.get(match.target), match.confidence)
            )
    result.right = {each.value: right[each] for each in Confidence}
    result.wrong = {each.value: wrong[each] for each in Confidence}
    made = {match.target for match in found.matches}
    result.lost = sum(new not in made for new in truth)
    result.stray = len(set(found.dropped) ^ set(pair.get("dropped", ())))


def _count_operations(result: Score, found: Inference, pair: Pair) -> None:
    true = {true_operation(each) for each in pair["ops"]}
    shapes = {key: tuple(shape or (1,)) for key, shape, *_ in pair["source"]}
    proposed = {operation_of(each, shapes) for each in found.operations}
    result.operations = len(true)
    result.operations_right = len(true & proposed)
    result.operations_wrong = sum(
        each.confidence is not Confidence.AMBIGUOUS and operation_of(each, shapes) not in true
        for each in found.operations
    )


_STACKED = ("stack", "stack_concat", "joined_other")
_RESHAPED = ("reshape", "squeeze", "unsqueeze")


def true_operation(each: dict[str, Any]) -> tuple[Any, ...]:
    """An operation of a PAIR.json. Experts count as stacked, however the converter does it."""
    verb, olds, news = each["op"], _listed(each["old"]), _listed(each["new"])
    if verb in _STACKED:
        return "stack", tuple(sorted(olds)), tuple(news)
    verb = "reshape" if verb in _RESHAPED else verb
    return verb, tuple(olds), tuple(news), tuple(each.get("dims", ())) or each.get("dim", 0)


def operation_of(each: InferredOperation, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Any, ...]:
    """An inferred operation in the same form, by the shapes of the source."""
    if each.verb == "stack":
        return "stack", tuple(sorted(each.sources)), each.targets
    if each.verb == "transpose" and 1 in shapes[each.sources[0]]:
        return "reshape", each.sources, each.targets, 0
    return each.verb, each.sources, each.targets, each.dims or each.dim


def _listed(one_or_more: Any) -> list[str]:
    return one_or_more if isinstance(one_or_more, list) else [one_or_more]


def table(scores: Sequence[Score]) -> str:
    """The table of scores."""
    rows = []
    for each in scores:
        ops = f"{each.operations_right}/{each.operations}" if each.operations else ""
        if each.operations_wrong:
            ops += f" +{each.operations_wrong} wrong"
        rows.append(
            [
                each.name,
                each.keys,
                *(
                    f"{each.right[level.value]}"
                    + (f" -{wrong}" if (wrong := each.wrong[level.value]) else "")
                    for level in Confidence
                ),
                each.lost or "",
                ops,
                "whole" if each.whole else "",
                each.questions or "",
                each.rules if each.exact else "",
                f"{each.seconds:.2f}",
                f"{each.rule_seconds:.2f}",
            ]
        )
    heads = ["pair", "keys", "certain", "likely", "ambiguous", "lost", "operations", "",
             "questions", "rules", "s", "rules s"]  # fmt: skip
    return tabulate([*rows, _total(scores)], heads, disable_numparse=True)


def _total(scores: Sequence[Score]) -> list[str]:
    cells = []
    for level in Confidence:
        right, wrong = (
            sum(getattr(each, side)[level.value] for each in scores) for side in ("right", "wrong")
        )
        cells.append(f"{right}" + (f" -{wrong}" if wrong else ""))
    whole = f"{sum(each.whole for each in scores)}/{len(scores)}"
    ops = [sum(getattr(s, name) for s in scores) for name in ("operations_right", "operations")]
    return [
        "all", str(sum(each.keys for each in scores)), *cells,
        str(sum(each.lost for each in scores)), "/".join(map(str, ops)), whole,
        str(sum(each.questions for each in scores)), str(sum(each.rules for each in scores)),
        f"{sum(each.seconds for each in scores):.2f}",
        f"{sum(each.rule_seconds for each in scores):.2f}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()

"""Mappings of other libraries as steps: plain JSON, which holds no code of theirs.

A step is ``{"sub": pattern, "to": template, "first": bool}``, ``{"map": {old: new}}``,
``{"drop": pattern}``, ``{"table": a rule}``, or ``{"left": what, "why": text}`` for what the rule
language cannot express.
Sources: transformers 5.24, `core_model_loading` (`WeightRenaming`, `WeightConverter`); vLLM 0.23,
`model_executor/models/utils.py` (`WeightsMapper`), applied in the order regex, substr, prefix,
suffix, each to the first match but for regex.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Step = dict[str, Any]
MAPPER = ("orig_to_new_regex", "orig_to_new_substr", "orig_to_new_prefix", "orig_to_new_suffix")
_PART = "ckpt_part"  # of the names of tensors between two steps
_META = re.compile(r"[\\^$*+?()\[\]{}|]")


def steps_of(value: object) -> list[Step]:
    """The steps of a mapping.

    Raises:
        ValueError: It is none of the known kinds.
    """
    for name in ("hf_to_vllm_mapper", "_checkpoint_conversion_mapping"):
        if isinstance(value, type) and getattr(value, name, None):
            value = getattr(value, name)
    if any(hasattr(value, name) for name in MAPPER):
        return [*_of_mapper(value)]
    if isinstance(value, Mapping):
        pairs = list(value.items())
        plain = all(isinstance(it, str) for pair in pairs for it in pair)
        if plain and not any(_META.search(old) for old in value):
            if any(old.startswith(".") or old.endswith(".") for old in value):
                return [_of_part(old, new) for old, new in pairs]
            return [{"map": dict(value)}]
        return [_of_pair(old, new) for old, new in pairs]
    if isinstance(value, list | tuple):
        if value and all(hasattr(it, "source_patterns") for it in value):
            return [*_of_transforms(value)]
        if all(isinstance(it, list | tuple) and len(it) == 2 for it in value):
            return [_of_pair(old, new) for old, new in value]
    raise ValueError(
        f"{type(value).__name__} is not a dict, a list of pairs for re.sub, conversions of "
        "transformers, or a mapper of vLLM"
    )


def _left(what: object, why: str) -> Step:
    return {"left": str(what), "why": why}


def _of_pair(old: object, new: object) -> Step:
    """One `re.sub`."""
    if isinstance(old, re.Pattern):
        if old.flags & ~re.UNICODE:
            return _left(old.pattern, "its pattern has flags")
        old = old.pattern
    if not isinstance(old, str):
        return _left(old, f"{type(old).__name__} is not a pattern")
    if new is None:
        return {"drop": old}
    if not isinstance(new, str):
        return _left(old, f"its replacement is a {type(new).__name__}")
    return {"sub": old, "to": new, "first": False}


def _of_part(old: str, new: str) -> Step:
    """One `str.replace`."""
    return {"sub": re.escape(old), "to": new.replace("\\", "\\\\"), "first": False}


def _of_mapper(mapper: object) -> Iterator[Step]:
    for name in sorted(set(dir(mapper)) - set(MAPPER)):
        if name.startswith("orig_to_new") and (other := getattr(mapper, name)):
            yield from (_left(f"{name}: {key}", "only vLLM loads tensors so") for key in other)
    regexes, substrings, prefixes, suffixes = (getattr(mapper, name, {}) for name in MAPPER)
    yield from (_of_pair(old, new) for old, new in regexes.items())
    literal = (
        *((re.escape(old), new) for old, new in substrings.items()),
        *((f"^{re.escape(old)}", new) for old, new in prefixes.items()),
        *((f"{re.escape(old)}$", new) for old, new in suffixes.items()),
    )
    for old, new in literal:
        if new is None:
            yield {"drop": old}
        else:
            yield {"sub": old, "to": new.replace("\\", "\\\\"), "first": True}


def _of_transforms(transforms: Iterable[Any]) -> Iterator[Step]:
    """All renames apply first, in turn; then one conversion applies to a key."""
    ordered = sorted(transforms, key=lambda it: hasattr(it, "operations"))
    for transform in ordered:
        kind, olds = type(transform).__name__, list(transform.source_patterns)
        if getattr(transform, "scope_prefix", None) is not None:
            yield _left(", ".join(olds), "it is for a part of a model")
            continue
        if kind in ("WeightRenaming", "PrefixChange"):
            (new, *more) = transform.target_patterns
            if more or (len(olds) > 1 and "\\1" in new):
                yield _left(", ".join(olds), f"a {kind} of several patterns with groups")
            else:
                new = new.replace("\\.", ".")
                old = "|".join(map(_pattern, sorted(olds, key=len, reverse=True)))
                yield {"sub": f"(?:{old})" if len(olds) > 1 else old, "to": new, "first": True}
        elif kind == "WeightConverter":
            yield from _of_converter(transform, olds)
        else:
            yield _left(", ".join(olds), f"{kind} is code")


def _pattern(source: str) -> str:
    """A pattern as transformers compiles it."""
    pattern = source.replace("*.", r".*\.")
    return pattern + r"(?!\w)" if re.search(r"[a-zA-Z0-9]$", pattern) else pattern


def _first(pattern: str) -> str:
    """The pattern, which then matches only where it does first in a key."""
    return f"^(.*?){shifted(pattern)}"


def _after_first(new: str) -> str:
    """The new name for what `_first` matches."""
    return f"\\1{shifted(new)}"


def shifted(text: str) -> str:
    """The same with a group before all others."""
    return re.sub(r"\\(\d+)", lambda group: f"\\{int(group[1]) + 1}", text)


def _of_converter(transform: Any, olds: list[str]) -> Iterator[Step]:
    """A conversion whose operations are stack, join, split and transpose."""
    news, operations = list(transform.target_patterns), list(transform.operations)
    kinds = [type(it).__name__ for it in operations]
    numbered = [_pattern(old.replace("*.", r"(\d+)\.", 1)) for old in olds]
    match kinds:
        case ["MergeModulelist"] if len(olds) == len(news) == 1 and "*" in olds[0]:
            yield _table("stack", numbered[0], news[0], operations[0].dim)
        case ["MergeModulelist", "Concatenate"] if len(news) == 1 and len(olds) > 1:
            parts = [f"{news[0]}.{_PART}{at}" for at in range(len(olds))]
            for old, part in zip(numbered, parts, strict=True):
                yield _table("stack", old, part, operations[0].dim)
            found = [f"{re.escape(part)}$" for part in parts]
            yield _table("concat", found, news[0], operations[1].dim)
        case ["Concatenate"] if len(news) == 1 and not any("*" in old for old in olds):
            found = [_first(_pattern(old)) for old in olds]
            yield _table("concat", found, _after_first(news[0]), operations[0].dim)
        case ["Chunk"] if len(olds) == 1 and not operations[0].num_shards_attribute:
            into = [_after_first(new) for new in news]
            yield _table("split", _first(_pattern(olds[0])), into, operations[0].dim)
        case ["Transpose"] if len(olds) == len(news) == 1 and not operations[0].check_dims:
            dims = [operations[0].dim0, operations[0].dim1]
            yield {"table": {"transpose": _pattern(olds[0]), "dims": dims}}
            yield {"sub": _pattern(olds[0]), "to": news[0], "first": True}
        case _:
            yield _left(", ".join(olds), " and ".join(kinds) or "a conversion of nothing")


def _table(verb: str, old: object, into: object, dim: int) -> Step:
    return {"table": {verb: old, "into": into, "dim": dim}}

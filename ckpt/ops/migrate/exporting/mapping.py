"""Migrations as one list of patterns and replacements: for transformers and for vLLM.

Such a list renames keys one by one and knows nothing else of a checkpoint. Law: it does to every
form what the migrations do, tried on their examples, or it is refused with the rule.
Sources: transformers 5.24, `from_pretrained(key_mapping=)` and `core_model_loading.WeightRenaming`:
the first match alone is replaced, with at most one group; a pattern that ends in a letter gets a
boundary. vLLM 0.23, `WeightsMapper`: every match is replaced; None drops the tensor.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from ckpt.migrate.migration import Migration
from ckpt.migrate.schema import FoldedSchema
from ckpt.ops.migrate.exporting.forms import EarlierForm
from ckpt.ops.migrate.exporting.literals import (
    ExportError,
    exploded,
    pattern_of,
    plain_template,
    quoted,
    sentence,
)
from ckpt.rules.choice import Choice
from ckpt.rules.expressions import Source
from ckpt.rules.planned import Rule
from ckpt.rules.prefixes import Add, Strip
from ckpt.rules.substitution import RenameRule

_END = "(?:)"  # matches nothing: makes a pattern differ from an equal one, and end in no letter
_HINTS = {
    "transformers": "--as torch  writes a hook, which can do it",
    "vllm": "--as torch  writes functions that can do it",
}
_Pair = tuple[str, str | None]  # a pattern and its replacement; None drops the key


def mapping_source(
    forms: Sequence[EarlierForm], present: FoldedSchema, name: str, target: str
) -> str:
    """The text of the module.

    Args:
        forms: The earlier forms of the class.
        present: Its schema.
        name: Its name.
        target: ``transformers`` or ``vllm``.

    Raises:
        ExportError: A rule or a form has no place in such a list; the message names it.
    """
    pairs: list[_Pair] = []
    for step in _one_chain(forms, target):
        for rule in step.rules:
            try:
                old, new = _pair(rule, target)
            except ExportError as error:
                hint = error.hint or _HINTS[target]
                raise ExportError(f"{step.name}: {error}", hint=hint) from error
            pairs.append((old + _END * (1 + sum(it[0].startswith(old) for it in pairs)), new))
    for before, after in _examples(forms, present):
        _expect(before, after, pairs, target)
    keys = {old: new for before, after in _examples(forms, present) for old, new in
            ((key, after.get(key)) for key in before)}  # fmt: skip
    return _module(pairs, keys, name, target)


def _one_chain(forms: Sequence[EarlierForm], target: str) -> Sequence[Migration]:
    """The migrations of the oldest form; those of all others must be the last ones of these."""
    longest = max((form.steps for form in forms), key=len)
    for form in forms:
        if form.steps != longest[len(longest) - len(form.steps) :]:
            raise ExportError(
                f"{form.steps[0].name} and {longest[0].name} begin two branches, and one list "
                "would apply both to every checkpoint",
                hint=_HINTS[target],
            )
    return longest


def _pair(rule: Rule, target: str) -> _Pair:
    match rule:
        case RenameRule():
            template = plain_template(rule)
            if template is None:
                raise ExportError(f"rule '{rule.text}' does arithmetic, which a mapping cannot")
            old = pattern_of(rule)
            if target == "transformers" and set(re.findall(r"\\g?<?(\w+)", template)) - {"1"}:
                raise ExportError(f"rule '{rule.text}' uses other groups than the first")
            return old, template
        case Strip():
            return "^" + re.escape(rule.prefix), ""
        case Add():
            return f"^(?!{re.escape(rule.prefix)})", rule.prefix.replace("\\", "\\\\")
        case Choice() if target == "vllm":
            return (f"^(?!.*(?:{rule.pattern}))" if rule.keeps else rule.pattern), None
    raise ExportError(f"{rule.text} is not a rename of one key after the other")


def _examples(
    forms: Sequence[EarlierForm], present: FoldedSchema
) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The keys of every form, and the new key of each that is kept."""
    for form in forms:
        for blocks, way in form.ways.items():
            keys = [entry.key for entry in form.schema.example(blocks).entries]
            new = {it.made_of.key: it.key for it in way.planned if isinstance(it.made_of, Source)}
            yield keys, new
    own = [entry.key for entry in present.example(2).entries]
    yield own, {key: key for key in own}


def _expect(
    keys: Sequence[str], wanted: dict[str, str], pairs: Sequence[_Pair], target: str
) -> None:
    """Make sure that the list does to the keys of a form what the migrations do."""
    for key in keys:
        made = _mapped(key, pairs, target)
        if made != wanted.get(key):
            raise ExportError(
                f"a list of patterns would make {made} of {key}, expected {wanted.get(key)}",
                hint=_HINTS[target],
            )


def _mapped(key: str, pairs: Sequence[_Pair], target: str) -> str | None:
    """A key after a list, as its target applies it."""
    for old, new in pairs:
        found = re.search(old, key)
        if found is None:
            continue
        if new is None:
            return None
        if target == "vllm":
            key = re.sub(old, new, key)
        else:
            key = key.replace(found[0], found.expand(new), 1)
    return key


def _item(pair: _Pair) -> str:
    return f"{quoted(pair[0])}: {_value(pair[1])}"


def _value(new: str | None) -> str:
    return "None" if new is None else quoted(new)


def _module(pairs: Sequence[_Pair], keys: Mapping[str, str | None], name: str, target: str) -> str:
    items = [_item(pair) for pair in pairs]
    if target == "vllm":
        items = [f"re.compile({quoted(old)}): {_value(new)}" for old, new in pairs]
    return _TEMPLATES[target].format(
        head=sentence(f"The keys of earlier checkpoints of {name}, and what they are now"),
        name=name,
        mapping=exploded("{", items, " " * _INDENTS[target], "}"),
        examples=exploded("{", map(_item, keys.items()), "", "}"),
    )


_INDENTS = {"transformers": 0, "vllm": 4}
_TEMPLATES = {
    "transformers": '''"""{head}

    {name}.from_pretrained(folder, key_mapping=KEY_MAPPING)

Written by `ckpt migrate export`; `pytest FILE` tests it.
"""

KEY_MAPPING = {mapping}
EXAMPLES = {examples}


def test_every_key_gets_its_name() -> None:
    """What transformers makes of the keys of each form."""
    from transformers.core_model_loading import WeightRenaming

    renamings = [WeightRenaming(old, new) for old, new in KEY_MAPPING.items()]
    for old, new in EXAMPLES.items():
        key = old
        for renaming in renamings:
            key, _ = renaming.rename_source_key(key)
        assert key == new
''',
    "vllm": '''"""{head}

    hf_to_vllm_mapper = MAPPER

Written by `ckpt migrate export`; `pytest FILE` tests it.
"""

import re

from vllm.model_executor.models.utils import WeightsMapper

MAPPER = WeightsMapper(
    orig_to_new_regex={mapping},
)
EXAMPLES: dict[str, str | None] = {examples}


def test_every_key_gets_its_name() -> None:
    """What vLLM makes of the keys of each form."""
    for old, new in EXAMPLES.items():
        assert MAPPER.apply_list([old]) == ([] if new is None else [new])
''',
}

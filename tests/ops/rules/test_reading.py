"""Rules of a mapping do to keys what its library does: keys are drawn, and both asked.

The oracles: transformers' own `rename_source_key`, `re.sub` and `str.replace`, and for vLLM, which
cannot be installed here, its description written again. Rules are run one by one on one key, since
a plan refuses rules that match nothing.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ckpt.definitions.importing import declare_torchvision_ops
from ckpt.errors import CkptError
from ckpt.ops.rules import rules_of_steps
from ckpt.ops.rules.reading import steps_of
from ckpt.rules.expressions import Source
from ckpt.rules.planned import Planned, Rule
from ckpt.rules.substitution import RenameRule
from tests.effort import by_effort, examples
from tests.ops.rules.drawn import keys_of

DROPPED, PART = "(dropped)", "(a part of an operation)"


def by_rules(rules: Sequence[Rule], key: str) -> str:
    """The key after the rules; `PART` if an operation needs other tensors besides."""
    for rule in rules:
        if isinstance(rule, RenameRule):
            key = rule.apply(key)  # a plan also refuses names with empty parts
            continue
        try:
            made = rule.run([Planned(key, Source(key, "float32", (12, 12, 12, 12)))])
        except CkptError:
            return PART
        if not made:
            return DROPPED
        key = made[0].key
    return key


def unusual(transforms: Sequence[Any], key: str) -> bool:
    """Whether transformers changes a key by accident, where rules change what matches.

    It replaces the first text that equals the match, wherever that is; takes anything for the
    number of an expert; and of several converters that match uses one.
    """
    for transform in transforms:
        match = transform.compiled_sources.search(key)
        if match is None:
            continue
        if key.find(match[0]) < match.start():
            return True
        key, pattern = transform.rename_source_key(key)
        if "*" in pattern and not re.fullmatch(pattern.replace("*.", r"\d+\."), match[0]):
            return True
        if hasattr(transform, "operations"):
            others = transforms[transforms.index(transform) + 1 :]
            again = [it for it in (transform, *others) if it.compiled_sources.search(match.string)]
            return len(again) > 1 or transform.compiled_sources.search(key) is not None
    return False


@pytest.mark.long
def test_rules_rename_as_transformers_does() -> None:
    """For every type of which nothing is left out: by 5.24, 245 of 261."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    declare_torchvision_ops()
    from transformers import conversion_mapping
    from transformers.core_model_loading import rename_source_key

    compared, changed = set(), 0
    for name in conversion_mapping._build_checkpoint_conversion_mapping():
        mapping = conversion_mapping.get_checkpoint_conversion_mapping(name)
        rules, left = rules_of_steps(steps_of(mapping))
        if left:
            continue
        converters = [it for it in mapping if hasattr(it, "operations")]
        renamings = [it for it in mapping if it not in converters]
        patterns = [pattern for it in mapping for pattern in it.source_patterns]
        for key in keys_of(patterns, by_effort(10, 40, 400), name):
            if unusual([*renamings, *converters], key):
                continue
            wanted, converted = rename_source_key(key, renamings, converters)
            found = by_rules(rules, key)
            assert found == wanted or (found == PART and converted), (name, key)
            compared.add(name)
            changed += found != key
    assert len(compared) > 200
    assert changed > len(compared) * 3


PIECES = ("conv", "layers", ".", "0", "12", "norm", "attn", "_", "weight", "model.")
PATTERNS = st.lists(
    st.sampled_from(
        ["conv", "layers", r"\.", r"(\d+)", "norm", "attn", "_", r"(weight|bias)", r"\d", ".",
         r"(?=\.)", r"(?<!_)", "model", r"(.*)", r"\b", "n+", "[a-n]"]
    ),
    min_size=1, max_size=3,
).map("".join)  # fmt: skip
KEYS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join)


@st.composite
def pair(draw: st.DrawFn) -> tuple[str, str]:
    """A pattern, at times with an anchor, and a template that uses its groups."""
    old = draw(st.sampled_from(["", "^"])) + draw(PATTERNS) + draw(st.sampled_from(["", "$"]))
    groups = [rf"\{n + 1}" for n in range(re.compile(old).groups)]
    parts = [*groups, r"\g<1>" if groups else "x", "blocks", ".", "", "y", r"\\"]
    return old, "".join(draw(st.lists(st.sampled_from(parts), max_size=3)))


@settings(max_examples=examples(400), deadline=None)
@given(st.lists(pair(), min_size=1, max_size=3), st.lists(KEYS, min_size=5, max_size=20))
@example([("n+", "")], ["norm.conv"])
@example([("^model", ""), (r"(\d+)(weight|bias)", r"\2\1")], ["model_0weight"])
def test_rules_of_pairs_do_what_re_sub_does(pairs: list[tuple[str, str]], keys: list[str]) -> None:
    rules, left = rules_of_steps(steps_of(pairs))
    assume(not left)
    for key in keys:
        made = key
        for old, new in pairs:
            made = re.sub(old, new, made)
        assert by_rules(rules, key) == made


@settings(max_examples=examples(200), deadline=None)
@given(
    st.dictionaries(
        st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("".join).map(".".__add__),
        KEYS, min_size=1, max_size=4,
    ),
    st.lists(KEYS, min_size=5, max_size=20),
)  # fmt: skip
def test_rules_of_parts_do_what_str_replace_does(parts: dict[str, str], keys: list[str]) -> None:
    rules, left = rules_of_steps(steps_of(parts))
    assert not left
    for key in keys:
        made = key
        for old, new in parts.items():
            made = made.replace(old, new)
        assert by_rules(rules, key) == made


Lines = Mapping[str, str | None]


class Mapper:
    """A mapper of vLLM 0.23, by its attributes."""

    def __init__(self, regexes: Mapping[re.Pattern[str], str | None], *literal: Lines) -> None:
        self.orig_to_new_regex = regexes
        self.orig_to_new_substr, self.orig_to_new_prefix, self.orig_to_new_suffix = literal


def by_vllm(mapper: Mapper, key: str) -> str:
    """What vLLM 0.23 makes of a key, written again from its description."""
    for pattern, new in mapper.orig_to_new_regex.items():
        if pattern.search(key):
            if new is None:
                return DROPPED
            key = pattern.sub(new, key)
    for kind, lines in (
        ("substr", mapper.orig_to_new_substr),
        ("prefix", mapper.orig_to_new_prefix),
        ("suffix", mapper.orig_to_new_suffix),
    ):
        for old, to in lines.items():
            found = {"substr": key.__contains__, "prefix": key.startswith, "suffix": key.endswith}
            if not found[kind](old):
                continue
            if to is None:
                return DROPPED
            at = len(key) - len(old) if kind == "suffix" else key.find(old)
            key = key[:at] + to + key[at + len(old) :]
    return key


LINES = st.dictionaries(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("".join),
    KEYS | st.none(), max_size=3,
)  # fmt: skip


@settings(max_examples=examples(400), deadline=None)
@given(st.lists(pair(), max_size=2), LINES, LINES, LINES, st.lists(KEYS, min_size=5, max_size=20))
def test_rules_of_a_mapper_do_what_vllm_does(
    pairs: list[tuple[str, str]], substrings: Lines, prefixes: Lines, suffixes: Lines,
    keys: list[str],
) -> None:  # fmt: skip
    regexes = {re.compile(old): new for old, new in pairs}
    mapper = Mapper(regexes, substrings, prefixes, suffixes)
    rules, left = rules_of_steps(steps_of(mapper))
    assume(not left)
    for key in keys:
        assert by_rules(rules, key) == by_vllm(mapper, key)

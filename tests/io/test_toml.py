"""TOML as it is written, with Python's own reader as the oracle."""

import tomllib
from math import isnan
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ckpt.io.documents.toml import text_of

texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.one_of(texts, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats())
values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner), st.dictionaries(texts, inner))
)


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, float):
        return found == expected or (isnan(found) and isnan(expected))
    if isinstance(expected, dict):
        pairs = zip(found.items(), expected.items(), strict=True)
        return all(a[0] == b[0] and same(a[1], b[1]) for a, b in pairs)
    if isinstance(expected, list):
        return all(same(a, b) for a, b in zip(found, expected, strict=True))
    return type(found) is type(expected) and bool(found == expected)


@given(st.dictionaries(texts, values))
def test_document_reads_back(document: dict[str, Any]) -> None:
    assert same(tomllib.loads(text_of(document)), document)


def test_rules_look_as_they_were_typed() -> None:
    document = {
        "name": "rename of old.pt",
        "rules": [{"rename": r"conv(\d)\.->embed.\1."}, {"split": "qkv", "into": ["q", "k's"]}],
        "source": [["conv1.weight", "float32", [3, 3]]],
        "tied": ["a"],
    }
    assert text_of(document) == (
        "name = 'rename of old.pt'\n"
        "rules = [\n"
        "    { rename = 'conv(\\d)\\.->embed.\\1.' },\n"
        "    { split = 'qkv', into = ['q', \"k's\"] },\n"
        "]\n"
        "source = [\n"
        "    ['conv1.weight', 'float32', [3, 3]],\n"
        "]\n"
        "tied = ['a']\n"
    )

"""What a pattern may say of a key without being run."""

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt.errors import RuleError
from ckpt.rules.patterns import Pattern
from tests.effort import examples

PIECES = [
    *"ab-_.*?+|()[]^$\\",
    *(r"\.", "{0}", "{2}", "(?i)", r"\d", "(?:", "{e<=1}"),
]
KEYS = st.text("abA.-_{}0", max_size=6)


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join), KEYS)
@settings(max_examples=examples(1500), deadline=None)
def test_key_that_may_not_match_does_not(source: str, key: str) -> None:
    try:
        compiled = regex.compile(source)
    except (regex.error, ValueError, RecursionError):
        with pytest.raises(RuleError):
            Pattern(source, name="it")
        return
    pattern = Pattern(source, name="it")
    assert pattern.may_match(key) or compiled.search(key) is None
    assert pattern.groups == compiled.groups


@pytest.mark.parametrize(
    ("source", "key"), [("conv", "fc.weight"), (r"^blocks\.(\d+)\.", "head.weight")]
)
def test_keys_without_the_text_of_a_pattern_are_passed_over(source: str, key: str) -> None:
    assert not Pattern(source, name="it").may_match(key)

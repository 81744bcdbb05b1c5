r"""Formulas such as ``{(\1-1)//3}``: Python's arithmetic on whole numbers is the oracle."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.errors import RuleError
from ckpt.rules.formulas import Formula
from ckpt.rules.substitution import parse_rule

NUMBERS = st.one_of(st.sampled_from([r"\1", r"\2"]), st.integers(0, 20).map(str))
FORMULAS = st.recursive(
    NUMBERS,
    lambda part: st.tuples(part, st.sampled_from(["+", "-", "*", "//", "%"]), part).map(
        lambda it: f"({it[0]}{it[1]}{it[2]})"
    ),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("text", "key", "new"),
    [
        (r"b\.(\d+)->d.{(\1-1)//3}.r.{(\1-1)%3}", "b.11.w", "d.3.r.1.w"),
        (r"d\.(\d+)\.(\d+)->b.{\1*3+\2+1}", "d.3.1.w", "b.11.w"),
        (r"b\.(\d+)->d.{ \1 % 4 + 1 }", "b.07.w", "d.4.w"),
        (r"b\.(\d+)->d.{-\1+11}x", "b.2", "d.9x"),
        (r"(?P<i>\d+)->{\1*2}", "21", "42"),
    ],
)
def test_formula_regroups_an_index(text: str, key: str, new: str) -> None:
    assert parse_rule(text).apply(key) == new


@given(FORMULAS, st.integers(0, 99), st.integers(0, 99))
def test_formula_is_that_of_python(text: str, one: int, other: int) -> None:
    formula = Formula(text)
    values = [(one, other)[group - 1] for group in formula.groups]
    python = re.sub(r"\\(\d)", lambda found: str((one, other)[int(found[1]) - 1]), text)
    try:
        wanted = eval(python)
    except ZeroDivisionError:
        wanted = -1
    if wanted >= 0:
        assert formula.of([*map(str, values)]) == str(wanted)
    else:
        with pytest.raises(RuleError, match=r"into a negative index|divides by zero"):
            formula.of([*map(str, values)])


@pytest.mark.parametrize(
    "formula",
    [r"\1/3", r"\1**9", r"\1 \1", r"(\1", r"\1)", r"\1+x", r"\1+007", r"\1<2", r"\1,2", r"~\1",
     "-" * 3000 + r"\1"],
)  # fmt: skip
def test_other_text_is_not_a_formula(formula: str) -> None:
    with pytest.raises(RuleError, match=r"is not a formula") as caught:
        parse_rule(rf"b(\d)->c{{{formula}}}")
    assert "rule 'b" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (r"l(\d)->{\1-2}", "turns 1 into a negative index"),
        (r"l(\d)->{\1//0}", r"divides by zero in {\1//0}"),
        (r"l(x)?->{\1*2}", "arithmetic on '', which is not a number"),
        (r"l(\d)->{\1*999999999*999999999*9}", "turns 1 into a number of over 18 digits"),
    ],
)
def test_formula_without_an_index_is_refused(text: str, says: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse_rule(text).apply("l1")
    assert says in str(caught.value)


def test_formula_with_a_group_that_is_not_there_is_refused() -> None:
    with pytest.raises(RuleError, match="uses group 2, its pattern has 1"):
        parse_rule(r"(\d)->{\2*3}")

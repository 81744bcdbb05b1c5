"""Integers and versions of modules at the ends of their ranges; Python's pickle is the oracle."""

import pickle

import pytest

from ckpt.formats.pickle.writer import integer, is_module_versions
from tests.formats import hostile


@pytest.mark.parametrize("number", [0, 255, 256, 2**16 - 1, 2**16, 2**31 - 1])
def test_integer_is_written_as_python_writes_it(number: int) -> None:
    assert hostile.PROTO2 + integer(number) + hostile.STOP == pickle.dumps(number, 2)


@pytest.mark.parametrize("number", [2**31, 2**63 - 1])
def test_large_integer_is_read_by_python(number: int) -> None:
    data = hostile.PROTO2 + integer(number) + hostile.STOP
    assert pickle.loads(data) == number  # noqa: S301 - made above


@pytest.mark.parametrize(
    ("versions", "holds"),
    [
        ({}, True),
        ({"": {}}, True),
        ({"": {"version": 0, "other": 2**31 - 1}}, True),
        ({"": {"version": 2**31}}, False),
        ({"": {"version": -1}}, False),
        ({"": {"version": True}}, False),
        ({1: {"version": 1}}, False),
        ({"": 1}, False),
        ("text", False),
    ],
    ids=repr,
)
def test_versions_of_modules_are_numbers_by_name(versions: object, holds: bool) -> None:
    assert is_module_versions(versions) is holds

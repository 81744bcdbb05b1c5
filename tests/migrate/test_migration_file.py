"""Migrations are read as TOML says, whatever their parts look like; tomllib is the oracle."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.migrate.migration import MigrationError, _parsed, read_migration

HEAD = "message = 'x'\ndefinition = 'net.py:Net'\nrules = [{ rename = 'a->b' }]\n"
BEFORE, AFTER = "[before]\nkeys = ['a  1']\n", "[after]\nkeys = ['b  1']\n"
PIECES = [
    *(HEAD, BEFORE, AFTER, "[checked]\nhow = 'proved'\n", "[after.blocks]\n", "[before.x]\ny=1\n"),
    *("x = '''\n", "'''\n", "y = [\n", "]\n", "'a',\n", "# [after]\n", "[before]\n", " [after]\n"),
    *("z = 1\n", '"""\n', "[[before]]\n", "[checked] # x\n", "\r\n", "before.n = 1\n"),
]


def result(parse: Callable[[str], object], text: str) -> object:
    try:
        return parse(text)
    except ValueError as error:
        return str(error)


@given(st.lists(st.sampled_from(PIECES), max_size=7))
def test_document_is_what_toml_says(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert result(_parsed, text) == result(tomllib.loads, text)


def test_error_has_the_line_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(HEAD + BEFORE + "[after]\nkeys = [\n  'b  1'\n  'c  1'\n]\n")
    with pytest.raises(MigrationError, match=r"x\.toml: .*\(at line 9, column 3\)"):
        read_migration(path)


@pytest.mark.parametrize(
    ("before", "says"),
    [
        ("keys = []", "before: not a list of keys"),
        ("keys = ['a 1']", "before: 'a 1' is not a key and its shape"),
        ("keys = ['a  1', 'a  1']", "before: 'a  1' occurs twice"),
        ("keys = ['a.{i  1']", "before: 'a.{i  1': '{i' is not an index"),
        ("keys = [1]", "before: '1' is not a key and its shape"),
        ("keys = [['a  1']]", "is not a key and its shape"),
        ("keys = [{ a = 'a  1' }]", "is not a key and its shape"),
        ("keys = ['a  1', 'a  -1']", "before: 'a  -1' is not a key and its shape"),
        (f"keys = ['{'a.' * 200}b  1']", "is not a key and its shape"),
    ],
)
def test_line_that_is_no_key_is_named(tmp_path: Path, before: str, says: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f"{HEAD}[before]\n{before}\n{AFTER}")
    for _ in range(2):  # what was read before is remembered
        with pytest.raises(MigrationError) as refused:
            read_migration(path)
        assert says in str(refused.value)
        assert refused.value.exit_code == 3

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.io.documents.strict_json import plain
from ckpt.show.look import terminal
from ckpt.show.look.terminal import Terminal, table
from ckpt.show.look.words import metric, printable, shape, size


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\rb\nc", r"a\x0db\x0ac"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\x9b31m", r"\x9b31m"),
        ("lone \ud800", r"lone \ud800"),
        ("plain · text", "plain · text"),
    ],
)
def test_fault_24_foreign_text_is_escaped(text: str, safe: str) -> None:
    assert printable(text) == safe


def test_fault_24_ascii_terminal_gets_ascii() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    Terminal(out=out, err=out).result("64 × 1 · café")
    assert raw.getvalue() == b"64 x 1 - caf\\xe9\n"


def test_error_is_one_line_and_its_hint_below() -> None:
    err = io.StringIO()
    Terminal(err=err).error("a.pt: bad\nname", "do this\nor that")
    assert err.getvalue() == "error: a.pt: bad\\x0aname\nhint:  do this\n       or that\n"


def test_numbers_read_well() -> None:
    assert [size(n) for n in (0, 999, 2_437_416, 3_000_000_000)] == [
        "0 B",
        "999 B",
        "2.4 MB",
        "3.0 GB",
    ]
    assert shape((64, 32, 3, 3)) == "64 32 3 3"
    assert shape(()) == "()"
    assert metric("accuracy", 0.99214) == "99.21%"


def test_json_has_no_bare_nan() -> None:
    out = io.StringIO()
    Terminal(out=out).data({"loss": float("nan"), "list": [float("inf"), (1, 2)]})
    assert '"nan"' in out.getvalue()
    assert plain(float("-inf")) == "-inf"


def test_table_folds_its_first_column_on_a_narrow_terminal() -> None:
    rows = [["x" * 60, "1"]]
    wide = table(rows, ["key", "n"])
    narrow = table(rows, ["key", "n"], width=40)
    assert max(map(len, wide.splitlines())) == 65
    assert max(map(len, narrow.splitlines())) <= 40


CELLS = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8),
    st.sampled_from(["1", "-1.50", "True", "nan", "", " a ", "%s", "-", "…", "漢"]),
)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=5), st.sampled_from([None, 20, 60]))
def test_table_of_many_rows_looks_as_tabulate_makes_it(
    rows: list[tuple[str, str, str]], width: int | None
) -> None:
    def made() -> str:
        return table(rows, ["key", "n", "long header"], right=["n"], width=width)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terminal, "_MANY_ROWS", 1)
        quick = made()
    assert quick == made()

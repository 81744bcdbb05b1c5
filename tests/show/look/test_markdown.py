"""Reports as Markdown: what is in them is text, whatever it says, and they fit a comment."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ckpt.show.look.markdown import markdown
from ckpt.show.look.tables import Report, Table
from tests.effort import examples

GITHUB = 65_536  # characters of a comment
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "</details><script>",
    "a|b",
    "`code` *bold* [link](http://x) ~~~ # h & <b>",
    "{0} {title}",
]


def report(text: str, rows: int = 1) -> Report:
    table = Table(["key", text], [[text, "1"]] * rows, right=[text])
    return Report(text, [table], [f"  {text}"], verdict=text)


@pytest.mark.parametrize("rows", [1, 30], ids=["open", "folded"])
@pytest.mark.parametrize("text", HOSTILE)
def test_fault_43_nothing_in_markdown_is_markup(text: str, rows: int) -> None:
    lines = markdown(report(text, rows)).splitlines()
    bare = [line.replace("\\\\", "").replace("\\|", "") for line in lines if line.startswith("|")]
    assert {line.count("|") for line in bare} == {3}, "two columns, whatever is in them"
    for line in (lines[0], lines[2].strip("*"), lines[-1]):
        escaped = line.removeprefix("### ")
        for mark in "<>`*[]":
            assert escaped.count(mark) == escaped.count(f"\\{mark}")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_parser_of_markdown_finds_the_text_and_no_markup(text: str) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown(report(text, 30)))
    blocks = [token.content for token in tokens if token.type == "html_block"]
    assert [block.strip() for block in blocks] == [
        "<details><summary>30 rows</summary>",
        "</details>",
    ]
    inline = [child for token in tokens for child in token.children or ()]
    assert {child.type for child in inline} <= {"text", "strong_open", "strong_close"}
    said = ["".join(each.content for each in t.children or ()) for t in tokens if t.children]
    assert said.count(text) >= 32


def test_command_in_markdown_is_code() -> None:
    text = markdown(Report("x", [], ["To make it fit:  ckpt rename a.pt --rule 'a_b->c'"]))
    assert text == "### x\n\nTo make it fit:\n\n    ckpt rename a.pt --rule 'a_b->c'"


def test_verdict_comes_first_and_long_tables_are_folded() -> None:
    rows = [["changed", f"layer{number}"] for number in range(13)]
    text = markdown(Report("a -> b", [Table(["", "key"], rows)], verdict="differs: 13 changed"))
    assert text.startswith("### a -\\> b\n\n**differs: 13 changed**\n\n<details><summary>13 rows<")
    assert text.endswith("\n\n</details>")


@settings(max_examples=examples(30))
@given(
    st.lists(st.tuples(st.integers(1, 600), st.integers(0, 400)), max_size=3),
    st.lists(st.integers(0, 40_000), max_size=4),
    st.sampled_from(["k", "_", "<", "\x00"]),
)
def test_a_report_of_any_size_fits_a_comment_and_counts_what_is_left_out(
    tables: list[tuple[int, int]], notes: list[int], char: str
) -> None:
    made = [Table(["key"], [[f"{row} " + char * width] for row in range(n)]) for n, width in tables]
    text = markdown(Report("a", made, [char * size for size in notes if size]))
    assert len(text) < GITHUB - 4000
    assert text.count("<details>") == text.count("</details>")
    shown = sum(line.startswith("|") and line[2:3].isdigit() for line in text.splitlines())
    words = [line.split() for line in text.splitlines() if line.startswith("and ")]
    left = sum(int(each[1].replace(",", "")) for each in words if each[3].startswith("row"))
    assert shown + left == sum(count for count, _ in tables)

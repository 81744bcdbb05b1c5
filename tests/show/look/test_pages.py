"""Reports as Markdown and HTML: what is in them is text, whatever it says."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.show.look.pages import markdown, page
from ckpt.show.look.tables import Report, Table

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "</title><script>",
    "a|b",
    "`code` *bold* [link](http://x) ~~~ # h & <b>",
    "{0} {title}",
]


def report(text: str) -> Report:
    return Report(text, [Table(["key", text], [[text, "1"]], right=[text])], [f"  {text}"])


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on") or name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("text", HOSTILE)
def test_fault_43_nothing_in_a_page_is_markup(text: str) -> None:
    found = Page(page(report(text)))
    assert {*found.elements} <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "p"),
        *("table", "thead", "tbody", "tr", "th", "td"),
    }
    assert found.text.count(text.strip()) == 5


@given(st.text("<>&\"'|`{}ab/", min_size=1, max_size=12).map(lambda text: f"x{text}x"))
def test_page_says_what_the_report_says(text: str) -> None:
    assert Page(page(report(text))).text.count(text) >= 5


@pytest.mark.parametrize("text", HOSTILE)
def test_fault_43_nothing_in_markdown_is_markup(text: str) -> None:
    lines = markdown(report(text)).splitlines()
    bare = [line.replace("\\\\", "").replace("\\|", "") for line in lines if line.startswith("|")]
    assert {line.count("|") for line in bare} == {3}, "two columns, whatever is in them"
    for line in (lines[0], lines[-1]):
        escaped = line.removeprefix("### ")
        for mark in "<>`*[]":
            assert escaped.count(mark) == escaped.count(f"\\{mark}")


def test_command_in_markdown_is_code() -> None:
    text = markdown(Report("x", [], ["To make it fit:  ckpt rename a.pt --rule 'a_b->c'"]))
    assert text == "### x\n\nTo make it fit:\n\n    ckpt rename a.pt --rule 'a_b->c'"

"""The documents name files that exist, and draw the layers that import-linter checks.

`CKPT_WRITE_README=1 pytest tests/test_documents.py` draws the picture again.
"""

import os
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ARCHITECTURE = ROOT / "docs" / "architecture.md"
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
DOCUMENTS = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
every_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix()
)

_PATH = re.compile(r"(?<![\w/.~-])(?:ckpt|tests|docs|examples|benchmarks)/[\w./-]*\w/?")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PICTURE = re.compile(r"(?<=^```text layers\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
_ANY = re.compile(r"X\.py$|/X$")  # the modules of any command X
_WIDTH = 72


def prose(document: Path) -> str:
    """The text without its console blocks, whose paths are those of the session shown."""
    text = document.read_text(encoding="utf-8")
    return re.sub(r"^```(console|pycon|toml).*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


@every_document
def test_paths_in_documents_exist(document: Path) -> None:
    named = {path for path in _PATH.findall(prose(document)) if not _ANY.search(path)}
    assert not {path for path in named if not (ROOT / path).exists()}


@every_document
def test_links_in_documents_lead_to_files(document: Path) -> None:
    links = [link.partition("#")[0] for link in _LINK.findall(prose(document))]
    local = {link for link in links if link and "://" not in link}
    assert not {link for link in local if not (document.parent / link).exists()}


def layers() -> list[list[str]]:
    """The layers of the package, from the top, as import-linter checks them."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    contracts = tools["importlinter"]["contracts"]
    (whole,) = [each for each in contracts if each.get("containers") == ["ckpt"]]
    return [re.split(r"\s*[|:]\s*", line) for line in whole["layers"]]


def picture(rows: list[list[str]]) -> str:
    """One box per module, the layers above each other."""
    lines, above = [], ""
    for row in rows:
        widths = [(_WIDTH - len(row) - 1) // len(row)] * len(row)
        widths[-1] += _WIDTH - len(row) - 1 - sum(widths)
        edge = "┼".join("─" * width for width in widths)
        cells = "│".join(name.center(width) for name, width in zip(row, widths, strict=True))
        lines += [_border(above, f"├{edge}┤"), f"│{cells}│"]
        above = lines[-1]
    return "\n".join([*lines, _border(above, "")]) + "\n"


def _border(above: str, below: str) -> str:
    """The line between two rows of boxes, which have an edge where a row has one."""
    marks = {(False, False): "─", (True, False): "┴", (False, True): "┬", (True, True): "┼"}
    first, last = ("┌┐", "├┤", "└┘")[1 if above and below else 2 if above else 0]
    inner = "".join(
        marks[above[place : place + 1] == "│", below[place : place + 1] == "┼"]
        for place in range(1, _WIDTH - 1)
    )
    return first + inner + last


def test_picture_of_the_layers_is_the_contract() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    (shown,) = _PICTURE.findall(text)
    drawn = picture(layers())
    if os.environ.get("CKPT_WRITE_README"):
        ARCHITECTURE.write_text(_PICTURE.sub(drawn, text), encoding="utf-8")
    else:
        assert shown == drawn


def test_every_layer_is_explained() -> None:
    table = ARCHITECTURE.read_text(encoding="utf-8").partition("| layer | holds |")[2]
    rows = re.findall(r"^\| `(\w+)` \|", table.partition("\n\n")[0], re.MULTILINE)
    assert rows == [module for row in layers() for module in row]


@pytest.mark.parametrize("record", DECISIONS, ids=lambda path: path.stem)
def test_decision_has_its_parts(record: Path) -> None:
    text = record.read_text(encoding="utf-8")
    assert text.startswith(f"# {int(record.name[:4])}. ")
    assert re.search(r"^Status: (accepted|replaced by .+)\\\nDate: 20\d\d-\d\d-\d\d", text, re.M)
    heads = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert heads == ["Context", "Alternatives", "Decision", "Consequences"]


def test_list_of_decisions_has_them_all() -> None:
    listed = (ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    titles = {path.name: path.read_text().splitlines()[0][2:] for path in DECISIONS}
    assert [int(name[:4]) for name in titles] == list(range(1, len(titles) + 1))
    for name, title in titles.items():
        assert f"[{title}]({name})" in listed

"""The examples in docstrings, docs/python.md and the notebook run and print what they show."""

import ast
import inspect
import json
import os
import re
from pathlib import Path

import pytest

import ckpt
from tests.python_examples import failures, prepared

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "python.md"
NOTEBOOK = ROOT / "examples" / "python.ipynb"
# Not run: they need a trained optimizer, or a class in a file.
ELSEWHERE = {"load_optimizer", "migrating"}
_PYTHON = re.compile(r"^```pycon\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TABLE = re.compile(r"(?<=<!-- every function -->\n)(.*?)(?=<!-- end -->)", re.DOTALL)


def documented() -> list[str]:
    names = [name for name in ckpt.__all__ if name not in ELSEWHERE]
    return [name for name in names if ">>>" in (inspect.getdoc(getattr(ckpt, name)) or "")]


@pytest.mark.parametrize("name", documented())
def test_example_of_a_docstring_prints_what_it_shows(name: str, tmp_path: Path) -> None:
    assert not failures(inspect.getdoc(getattr(ckpt, name)) or "", name, tmp_path)


def test_most_functions_have_an_example() -> None:
    assert len(documented()) > 20


def test_page_prints_what_it_shows(tmp_path: Path) -> None:
    blocks = _PYTHON.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) > 5
    assert not failures("\n".join(blocks), "python.md", tmp_path)


def test_page_lists_every_function() -> None:
    """`CKPT_WRITE_README=1` writes the list."""
    text = PAGE.read_text(encoding="utf-8")
    rows = [f"| `ckpt.{name}` | {summary(name)} |" for name in ckpt.__all__]
    table = "\n".join(["| name | does |", "|---|---|", *rows, ""])
    found = _TABLE.sub(lambda _: table, text)
    if os.environ.get("CKPT_WRITE_README"):
        PAGE.write_text(found, encoding="utf-8")
    assert found == text or os.environ.get("CKPT_WRITE_README")


def summary(name: str) -> str:
    paragraph = (inspect.getdoc(getattr(ckpt, name)) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).removesuffix(".").replace("|", "\\|")


def test_tour_runs_and_help_has_every_function(tmp_path: Path) -> None:
    import pydoc

    assert not failures(ckpt.__doc__ or "", "ckpt", tmp_path)
    shown = pydoc.plain(pydoc.render_doc(ckpt))
    assert all(re.search(rf"\b{name}\b", shown) for name in ckpt.__all__)


def test_notebook_runs_from_top_to_bottom_and_has_no_outputs(tmp_path: Path) -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 5
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    shown = []
    with prepared(tmp_path):
        names: dict[str, object] = {"__name__": "__main__"}
        for cell in cells:
            body = ast.parse("".join(cell["source"]))
            last = body.body.pop() if isinstance(body.body[-1], ast.Expr) else None
            exec(compile(body, str(NOTEBOOK), "exec"), names)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)
                shown.append(getattr(value, "_repr_html_", value.__repr__)())
    assert any("fits" in text for text in shown)
    assert sum(text.startswith("<pre>") for text in shown) >= 4

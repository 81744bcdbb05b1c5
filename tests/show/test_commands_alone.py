"""A command that can be pasted ends its line: no prose comes after it, which would be arguments."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ckpt

SOURCE = Path(ckpt.__file__).parent
# Two spaces around a command set it apart; what has a placeholder, such as FILE, is not pasted.
_THEN_PROSE = re.compile(r"(?:^|: |  )((?:ckpt|git|pip) [a-z-](?:(?!  ).)*)  +\S")
_PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b")
# These name a command in a sentence, or several.
_SENTENCES = (
    "add registry.json  after it", "git config  ", "ckpt restore  brings them back",
    "ckpt fsck  lists them", "ckpt gc  frees them", "ckpt gc  on the machine",
    "ckpt gc  where the disk", "git-driver install  once", "git-driver install :", " in {}, too",
    "  or, without quotes,  ", "  or  --", "  and  ckpt ", "  and, in the clone,  ",
    "ckpt remote add  again", "ckpt push  there sends", "ckpt push  sends it again",
    "ckpt migrate run  converts", "ckpt migrate new  writes one", "git-driver resolve  merges",
    "git lfs pull  fetches all", "git checkout registry.json  restores", "git checkout -m {}  ",
)  # fmt: skip


def texts() -> Iterator[str]:
    """Every text in the code, with ``{}`` for what is filled in."""
    for path in SOURCE.rglob("*.py"):
        filled: set[int] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                filled.update(map(id, ast.walk(node)))
                parts = (it.value if isinstance(it, ast.Constant) else "{}" for it in node.values)
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and id(node) not in filled:
                yield str(node.value)


@pytest.mark.long
def test_no_prose_after_a_command_that_can_be_pasted() -> None:
    found = [
        line
        for text in texts()
        for line in text.split("\n")
        if (command := _THEN_PROSE.search(line))
        and not _PLACEHOLDER.search(command[1])
        and not any(sentence in line for sentence in _SENTENCES)
    ]
    assert found == []

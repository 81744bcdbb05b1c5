"""A new user has the guard in a repository of their own, from `docs/guard.md` alone.

Its files are written and its commands run, in their order, in an empty repository.
`CKPT_WRITE_README=1 pytest tests/test_guard_page.py` writes what is printed into the page.
"""

import os
import re
from pathlib import Path

import pytest

from tests.cli.conftest import folder, git  # noqa: F401 - fixtures
from tests.cli.support import Git
from tests.test_readme import refreshed

PAGE = Path(__file__).parent.parent / "docs" / "guard.md"
_STEP = re.compile(
    r"`(?P<name>[\w./]+\.(?:py|toml))`:\n\n```\w+\n(?P<text>.*?)^```$"
    r"|^```console\n(?P<commands>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@pytest.mark.long
@pytest.mark.long
def test_page_is_typed_out_in_a_repository_of_ones_own(git: Git, folder: Path) -> None:  # noqa: F811
    def step(found: re.Match[str]) -> str:
        if found["name"]:
            path = folder / found["name"]
            path.parent.mkdir(exist_ok=True)
            path.write_text(found["text"])
            return found[0]
        return f"```console\n{refreshed(found['commands'], folder, same=str)}```"

    text = PAGE.read_text(encoding="utf-8")
    shown = _STEP.sub(step, text)
    if os.environ.get("CKPT_WRITE_README"):
        PAGE.write_text(shown, encoding="utf-8")
    assert shown == text or os.environ.get("CKPT_WRITE_README")
    assert git("status", "--porcelain").stdout == ""
    assert {path.name for path in (folder / "models" / "migrations").iterdir()} == {
        "conv-to-embed.toml",
        "schemas",
    }

from pathlib import Path

import pytest
import torch

from ckpt.cli import main
from tests.cli.support import Ran, Run, weights


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ckpt(folder: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in the empty folder."""

    def run(*words: str) -> Ran:
        capfd.readouterr()
        with pytest.raises(SystemExit) as done:
            main(words)
        out, err = capfd.readouterr()
        assert isinstance(done.value.code, int)
        return Ran(done.value.code, out, err)

    return run


@pytest.fixture
def old(folder: Path) -> Path:
    """`old.pt`: a file that no longer fits, since conv was renamed to embed."""
    path = folder / "old.pt"
    torch.save(weights(), path)
    return path

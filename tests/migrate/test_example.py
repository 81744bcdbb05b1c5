"""`examples/refactor`, played from its first commit to its last."""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import ckpt
from tests.migrate.classes import class_in

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "refactor"
FORMS = (1, 2, 3, 4)
pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::ckpt.migrate.hook.MigratedWarning"),
]


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example") / "project"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", EXAMPLE / "play.sh", folder], env={**os.environ, "PATH": path},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 migrations in migrations: all good" in done.stdout
    return folder


@pytest.fixture(scope="module")
def commits(played: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A checkout of each commit, by the form of its class."""
    found = {}
    revisions = git(played, "rev-list", "--reverse", "HEAD").split()
    for form, revision in zip(FORMS, revisions, strict=True):
        found[form] = tmp_path_factory.mktemp(f"commit{form}") / "project"
        git(played, "worktree", "add", "-q", "--detach", str(found[form]), revision)
    return found


def net_of(folder: Path) -> Any:
    return class_in(folder / "net.py", (folder / "net.py").read_text())


def outputs(net: Any) -> torch.Tensor:
    images = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        result: torch.Tensor = net.double().eval()(images.double())
    return result


@pytest.mark.parametrize("form", FORMS)
def test_every_earlier_checkpoint_loads_with_equal_outputs(
    commits: dict[int, Path], tmp_path: Path, form: int
) -> None:
    folder = commits[form]
    net = net_of(folder)
    for old in range(1, form + 1):
        first = net_of(commits[old])()
        first.load_state_dict(torch.load(folder / f"{old}.pt"))
        expected = outputs(first)
        by_hook = net()
        by_hook.load_state_dict(torch.load(folder / f"{old}.pt"))
        loaded = net()
        with warnings.catch_warnings():  # what it gives fits, without the hook
            warnings.simplefilter("error")
            loaded.load_state_dict(ckpt.load(folder / f"{old}.pt", to=net))
        file = tmp_path / f"{old}.pt"
        ckpt.migrate(folder / f"{old}.pt", f"{folder / 'net.py'}:Net", out=file)
        ran = net()
        ran.load_state_dict(torch.load(file))
        assert torch.allclose(outputs(ran), expected, atol=1e-12)
        assert torch.allclose(outputs(by_hook), expected, atol=1e-12)
        assert torch.allclose(outputs(loaded), expected, atol=1e-12)


@pytest.mark.parametrize("old", FORMS[:-1])
def test_the_way_back(commits: dict[int, Path], tmp_path: Path, old: int) -> None:
    newest = commits[FORMS[-1]]
    out = tmp_path / "back.pt"
    done = ckpt.migrate(
        newest / "4.pt", f"{commits[old] / 'net.py'}:Net", by=f"{newest / 'net.py'}:Net", out=out
    )
    assert done.way.back
    new, back = net_of(newest)(), net_of(commits[old])()
    new.load_state_dict(torch.load(newest / "4.pt"))
    back.load_state_dict(torch.load(out))
    assert torch.allclose(outputs(back), outputs(new), atol=1e-12)


def test_another_depth_and_width(commits: dict[int, Path]) -> None:
    first, last = net_of(commits[1])(width=12, depth=5), net_of(commits[4])(width=12, depth=5)
    last.load_state_dict(first.state_dict())
    assert torch.allclose(outputs(last), outputs(first), atol=1e-12)

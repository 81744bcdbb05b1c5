"""The wheel holds all that running needs, and nothing that would clash in site-packages."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEMPLATES = ROOT / "ckpt" / "show" / "pages" / "templates"
TOPICS = ROOT / "ckpt" / "cli" / "help" / "topics"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(source)], check=True)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.mark.long
def test_wheel_brings_one_top_level_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"ckpt"}
    assert {"ckpt/models/mnist_cnn.py", "ckpt/models/mnist_embed.py", "ckpt/py.typed"} <= set(names)
    templates = {f"ckpt/show/pages/templates/{path.name}" for path in TEMPLATES.iterdir()}
    assert len(templates) > 5
    assert templates <= set(names)
    assert {f"ckpt/cli/help/topics/{path.name}" for path in TOPICS.iterdir()} <= set(names)
    assert all(f"ckpt/{path.name}/__init__.py" in names for path in packages())


def packages() -> list[Path]:
    return [path for path in (ROOT / "ckpt").iterdir() if (path / "__init__.py").exists()]


@pytest.mark.long
def test_wheel_trains_and_registers_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    # The interpreter below the virtual environment: it knows of no editable install, and
    # takes the dependencies from where they are.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(site), sysconfig.get_path("purelib")]),
    }
    words = ["train", "--register", "--dataset", "digits", "--epochs", "1", "--precision", "fp32"]
    python = getattr(sys, "_base_executable", sys.executable)
    done = subprocess.run(
        [python, "-m", "ckpt", *words], cwd=empty, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (0, [began(empty)])
    assert done.stdout.splitlines()[-1].startswith("registered mnist-cnn:v1  sha256:")
    assert sorted(path.name for path in empty.iterdir()) == [".ckpt", "registry.json"]


def began(folder: Path) -> str:
    return f"created a registry: {folder / 'registry.json'}"

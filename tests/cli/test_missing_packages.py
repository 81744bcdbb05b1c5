"""The core installs without torch and numpy: what needs a package that is missing says so."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ckpt.models.mnist_cnn import Net

import ckpt
from tests.signing.keys import write_pair

PACKAGES = ("torch", "torchvision", "numpy")
WITHOUT = (
    "import sys; sys.modules |= dict.fromkeys({without}); from ckpt.cli import main; main({words})"
)


def run(folder: Path, *words: str, without: tuple[str, ...] = PACKAGES) -> str:
    """The exit code and what a command prints, in a Python that lacks the packages `without`."""
    code = WITHOUT.format(without=without, words=list(words))
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    state = Net().state_dict()
    torch.save(state, tmp_path / "old.pt")
    torch.save(
        {key: tensor + (key == "fc1.bias") for key, tensor in state.items()}, tmp_path / "b.pt"
    )
    torch.save(
        {"w": torch.rand(3, 4).t(), "fc1.biases": state["fc1.bias"] + 1e-3}, tmp_path / "strided.pt"
    )
    return tmp_path


@pytest.mark.long
def test_files_are_read_renamed_and_stored_without_torch(folder: Path) -> None:
    assert run(folder, "show", "old.pt").startswith("0\nold.pt  torch-zip")
    assert run(folder, "rename", "old.pt", "--rule", "fc=head", "-o", "new.pt").startswith("0\n")
    assert "fc1.{weight,bias}" not in run(folder, "diff", "old.pt", "b.pt")
    assert "fc1.bias" in run(folder, "diff", "old.pt", "b.pt")
    assert "renamed   fc" in run(folder, "diff", "old.pt", "new.pt")
    assert run(folder, "register", "new.pt").startswith("0\n")
    assert run(folder, "export", "new:v1", "-o", "back.pt").startswith("0\n")
    assert (folder / "back.pt").read_bytes() == (folder / "new.pt").read_bytes()


@pytest.mark.parametrize(
    ("words", "package", "typed"),
    [
        ("train", "torch", "'ckpt-registry[train]'"),
        ("diff old.pt b.pt --values", "numpy", "numpy"),
        ("show old.pt --deep", "numpy", "numpy"),
        ("register strided.pt", "numpy", "numpy"),
    ],
)
def test_a_missing_package_is_one_line(folder: Path, words: str, package: str, typed: str) -> None:
    command = words.split()[0]
    assert run(folder, *words.split()) == (
        f"5\nerror: ckpt {command} needs {package}, which is not installed\n"
        f"hint:  pip install {typed}\n"
    )


def test_pages_need_a_package_and_other_reports_do_not(folder: Path) -> None:
    words = ("diff", "old.pt", "b.pt", "--format")
    assert run(folder, *words, "html", without=("jinja2",)) == (
        "5\nerror: ckpt diff needs jinja2, which is not installed\n"
        "hint:  pip install 'ckpt-registry[site]'\n"
    )
    assert run(folder, *words, "markdown", without=("jinja2",)).startswith("0\n### ")


@pytest.mark.parametrize("without", [("model_signing",), ("OpenSSL",), ("cryptography",)])
def test_signatures_need_a_package_and_plain_verification_does_not(
    folder: Path, without: tuple[str, ...]
) -> None:
    write_pair(folder)
    assert run(folder, "register", "old.pt", "--name", "net").startswith("0\n")
    for words in (("sign", "v1", "--key", "private.pem"), ("show", "v1"), ("verify",)):
        printed = run(folder, *words, without=without)
        if words[0] != "sign":
            assert printed.startswith("0\n"), printed
            continue
        (package,) = without
        assert printed == (
            f"5\nerror: ckpt sign needs {package}, which is not installed\n"
            "hint:  pip install 'ckpt-registry[sign]'\n"
        )
    assert run(folder, "sign", "v1", "--key", "private.pem").startswith("0\nsigned ")
    words = ("verify", "--signed", "--key", "public.pem")
    assert run(folder, *words, without=without) == (
        f"5\nerror: ckpt verify needs {package}, which is not installed\n"
        "hint:  pip install 'ckpt-registry[sign]'\n"
    )


def test_mlflow_is_needed_for_its_stores_alone(folder: Path) -> None:
    words = ("import", "mlflow:models/net", "--from", "http://127.0.0.1:9")
    assert run(folder, *words, without=("mlflow",)) == (
        "5\nerror: ckpt import needs mlflow, which is not installed\n"
        "hint:  pip install 'ckpt-registry[mlflow]'\n"
    )
    assert run(folder, "import", "folder:.", "--dry-run", without=("mlflow",)).startswith("0\n")


def test_keys_are_not_paired_where_values_cannot_contradict(folder: Path) -> None:
    printed = run(folder, "diff", "b.pt", "strided.pt")
    assert printed.startswith("0\n")
    assert "renamed" not in printed
    assert "renamed?" in run(
        folder, "diff", "old.pt", "strided.pt", without=("torch", "torchvision")
    )


def test_a_ref_that_names_nothing_is_told_without_torch(folder: Path) -> None:
    assert run(folder, "export", "net:v1", "-o", "x.pt").startswith("2\nerror: ")


def test_a_file_of_ours_that_is_missing_is_told(folder: Path) -> None:
    printed = run(folder, "ls", without=("ckpt.ops.ls",))
    assert printed.startswith("5\nerror: ")
    assert "ckpt.ops.ls is missing, or belongs to another package" in printed
    assert "pip install --force-reinstall --no-deps ckpt-registry" in printed


def test_another_package_of_the_name_ckpt_is_told(folder: Path) -> None:
    """Two packages of PyPI write their own `ckpt/__init__.py` over ours."""
    site = folder / "site"
    shutil.copytree(Path(ckpt.__file__).parent, site / "ckpt")
    (site / "ckpt" / "__init__.py").write_text('__version__ = "0.2.3"\n')
    code = "from ckpt.cli import main; main(['ls'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(site)},
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr == (
        f"error: {site / 'ckpt'}: ckpt.__init__ is missing, or belongs to another package\n"
        "hint:  pip install --force-reinstall --no-deps ckpt-registry\n"
    )

"""The documents are true: their commands run, and what they show is what these print.

`CKPT_WRITE_README=1 pytest tests/test_readme.py` writes what is printed into them. In a block
marked ``console vary`` the numbers differ from machine to machine and are not compared.
"""

import doctest
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "docs" / "json.md", ROOT / "docs" / "formats.md"]
DOCUMENTS += [ROOT / "docs" / name for name in ("pages.md", "rules.md")]
NOT_OF_A_PERSON = ("CKPT_DATA", "OMP_NUM_THREADS")
_BLOCK = re.compile(r"^```console( vary)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^```pycon\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a person has right after the clone, and a file that no longer loads."""
    folder = tmp_path / "clone"
    folder.mkdir()
    shutil.copy(ROOT / "registry.json", folder)
    for name in (".ckpt", "models"):
        ignore = shutil.ignore_patterns("__pycache__", "lock", "writing", "tmp")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    assert shell("ckpt export v1 -o old.pt", folder).startswith("wrote old.pt")
    write_training_checkpoint(folder)
    write_others(folder)
    return folder


def write_others(folder: Path) -> None:
    """`ddp.pt`, as DistributedDataParallel names its keys; `vit.pt`, and rules for it."""
    weights = torch.load(folder / "old.pt", weights_only=True)
    torch.save({f"module.{key}": each for key, each in weights.items()}, folder / "ddp.pt")
    blocks = [f"blocks.{number}.attn.qkv.weight" for number in range(12)]
    torch.save({key: torch.full((576, 192), 0.5) for key in blocks}, folder / "vit.pt")
    (folder / "qkv.toml").write_text(
        "[[rules]]\nsplit = 'attn\\.qkv'\ninto = ['attn.q', 'attn.k', 'attn.v']\n\n"
        "[[rules]]\nrename = '^blocks->encoder.layer'  # and the names above it\n"
    )


def write_training_checkpoint(folder: Path) -> None:
    """`run.pt`, as a training script leaves it."""
    weights = torch.load(folder / "old.pt", weights_only=True)
    ema = {key: tensor * 0.999 if tensor.ndim > 1 else tensor for key, tensor in weights.items()}
    state = {number: {"exp_avg": tensor} for number, tensor in enumerate(weights.values())}
    optimizer = {"state": state, "param_groups": [{"lr": 0.1, "params": list(state)}]}
    run = {"model": weights, "ema": ema, "optimizer": optimizer, "epoch": 14}
    torch.save(run, folder / "run.pt")


def shell(command: str, folder: Path) -> str:
    """What a person sees of one command."""
    environment = {
        **{name: value for name, value in os.environ.items() if name not in NOT_OF_A_PERSON},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
    }
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.stdout


def refreshed(block: str, folder: Path, *, same: Callable[[str], str]) -> str:
    """The block with what its commands print now, where that is not the same."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)
    assert parts[0] == ""
    steps = []
    for command, shown in zip(parts[1::2], parts[2::2], strict=True):
        printed = shell(command, folder).rstrip("\n")
        old = shown.rstrip("\n")
        steps.append(f"$ {command}\n{old if same(old) == same(printed) else printed}".rstrip("\n"))
    return "\n\n".join(steps) + "\n"


def without_times(text: str) -> str:
    return re.sub(r"in \d+\.\d+ s", "in N s", text)


def without_numbers(text: str) -> str:
    text = re.sub(r"\b(\d+ min )?[\d.]+ s\b", "N s", text)  # a busy machine takes minutes
    return re.sub(r"sha256:[0-9a-f]+|[\d,.]+|-{2,}", "N", re.sub(r" +", " ", text))


@pytest.mark.long
@pytest.mark.parametrize("document", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_document_shows_what_the_commands_print(clone: Path, document: Path) -> None:
    text = document.read_text(encoding="utf-8")

    def refresh(block: re.Match[str]) -> str:
        same = without_numbers if block[1] else without_times
        return f"```console{block[1] or ''}\n{refreshed(block[2], clone, same=same)}```"

    found = _BLOCK.sub(refresh, text)
    if os.environ.get("CKPT_WRITE_README"):
        document.write_text(found, encoding="utf-8")
    assert found == text or os.environ.get("CKPT_WRITE_README")


def test_readme_python_prints_what_it_shows(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone)
    text = "\n".join(_PYTHON.findall(README.read_text(encoding="utf-8")))
    test = doctest.DocTestParser().get_doctest(text, {}, "README", "README.md", 0)
    assert len(test.examples) > 5
    failures: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=failures.append)
    assert not failures, "".join(failures)

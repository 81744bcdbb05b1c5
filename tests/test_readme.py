"""The documents are true: their commands run, and what they show is what these print.

`CKPT_WRITE_README=1 pytest tests/test_readme.py` writes what is printed into them. In a block
marked ``console vary`` the numbers differ from machine to machine and are not compared.
"""

import doctest
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from ckpt.models.mnist_cnn import Net
from rich.console import Console
from rich.terminal_theme import MONOKAI as THEME
from rich.text import Text
from safetensors.torch import save_file

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
_PAGES = "comparing formats howto json pages registry renaming rules training"
DOCUMENTS = [README, *(ROOT / "docs" / f"{name}.md" for name in _PAGES.split())]
NOT_OF_A_PERSON = ("CKPT_AUTHOR", "CKPT_DATA", "OMP_NUM_THREADS")
_BLOCK = re.compile(r"^```console( vary)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^```pycon\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a person has right after the clone, and files that no longer load."""
    folder = tmp_path_factory.mktemp("made") / "clone"
    folder.mkdir()
    shutil.copy(ROOT / "registry.json", folder)
    for name in (".ckpt", "models"):
        ignore = shutil.ignore_patterns("__pycache__", "lock", "writing", "tmp")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    assert shell("ckpt export v1 -o old.pt", folder).startswith("wrote old.pt")
    write_training_checkpoint(folder)
    write_others(folder)
    write_files_of_frameworks(folder)
    return folder


@pytest.fixture
def clone(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "clone"))


def write_others(folder: Path) -> None:
    """Files as people have them."""
    weights = torch.load(folder / "old.pt", weights_only=True)
    torch.save(
        {key.replace("conv", "embed"): each for key, each in weights.items()}, folder / "same.pt"
    )
    torch.save({f"module.{key}": each for key, each in weights.items()}, folder / "ddp.pt")
    blocks = [f"blocks.{number}.attn.qkv.weight" for number in range(12)]
    torch.save({key: torch.full((576, 192), 0.5) for key in blocks}, folder / "vit.pt")
    (folder / "qkv.toml").write_text(
        "[[rules]]\nsplit = 'attn\\.qkv'\ninto = ['attn.q', 'attn.k', 'attn.v']\n\n"
        "[[rules]]\nrename = '^blocks->encoder.layer'  # and the names above it\n"
    )


def write_files_of_frameworks(folder: Path) -> None:
    """Files of Lightning, a hub, a whole module and an attacker; a class with more labels."""
    weights = torch.load(folder / "old.pt", weights_only=True)
    lit = {f"model.{key}": tensor for key, tensor in weights.items()}
    state = {number: {"exp_avg": tensor} for number, tensor in enumerate(weights.values())}
    optimizer = {"state": state, "param_groups": [{"lr": 0.1, "params": list(state)}]}
    torch.save(
        {"epoch": 3, "pytorch-lightning_version": "2.5.0", "state_dict": lit,
         "optimizer_states": [optimizer]},
        folder / "lit.ckpt",
    )  # fmt: skip
    torch.save({f"backbone.{key}": each for key, each in weights.items()}, folder / "theirs.pt")
    write_shards(weights, folder / "hub")
    net = Net()
    net.load_state_dict(weights)
    torch.save(net, folder / "whole.pt")
    torch.save({**weights, "step": Hostile()}, folder / "hostile.pt")
    wider = (folder / "models" / "mnist_cnn.py").read_text().replace("64, 10)", "64, 47)")
    (folder / "wider.py").write_text(wider)


class Hostile:
    """Runs a program when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("echo harmless",)


def write_shards(weights: dict[str, torch.Tensor], folder: Path) -> None:
    folder.mkdir()
    shards = {"conv": "model-00001-of-00002.safetensors", "fc": "model-00002-of-00002.safetensors"}
    for part, name in shards.items():
        part_of = {key: tensor for key, tensor in weights.items() if key.startswith(part)}
        save_file(part_of, folder / name, metadata={"format": "pt"})
    places = {key: shards["conv" if key.startswith("conv") else "fc"] for key in weights}
    index = {"metadata": {"total_size": 2437416}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text('{"architectures": ["Net"]}')


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
    return bash(command, folder, environment).stdout


def bash(
    command: str, folder: Path, environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Run a line; its stdout has stderr, too."""
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


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
    # A busy machine takes minutes, and says meanwhile how far it is.
    text = re.sub(r"^epoch .* images\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\b(\d+ min )?[\d.]+ s\b", "N s", text)
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
    assert len(test.examples) >= 5
    failures: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=failures.append)
    assert not failures, "".join(failures)


PICTURE = ROOT / "docs" / "first-screen.svg"
SCREEN = (
    "ckpt diff old.pt models/mnist_embed.py:Net",
    "ckpt rename old.pt --rule 'conv->embed' --check models/mnist_embed.py:Net",
)
# Fonts of the reader's system: a picture must not fetch any.
_SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
    font: {char_height}px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
    line-height: {line_height}px;
}}
{styles}
</style>
<rect fill="#1c1f26" width="{width}" height="{height}" rx="8"/>
<defs>{lines}</defs>
<g transform="translate({terminal_x}, {terminal_y})">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def drawn(screen: str) -> str:
    """A terminal that shows this, as SVG."""
    console = Console(
        record=True, file=io.StringIO(), width=92, force_terminal=True, color_system="truecolor"
    )
    console.print(Text.from_ansi(screen), soft_wrap=True)
    return console.export_svg(code_format=_SVG, theme=THEME, unique_id="ckpt")


@pytest.mark.long
def test_picture_of_the_first_screen_is_what_the_commands_print(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "92")
    found = drawn("\n".join(f"$ \x1b[1m{each}\x1b[0m\n{shell(each, clone)}" for each in SCREEN))
    if os.environ.get("CKPT_WRITE_README"):
        PICTURE.write_text(found, encoding="utf-8")
    assert PICTURE.read_text(encoding="utf-8") == found

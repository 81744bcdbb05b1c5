"""No command prints a line that is longer than the terminal, but one that is there to be copied."""

import re
from pathlib import Path

import pytest
import torch

from tests.cli.support import Run, on_a_terminal
from tests.effort import long_but
from tests.signing.keys import write_pair

LONG = "a_rather_long_name_of_a_checkpoint.pt"
KEY = "the-public-half-of-a-key."
COMMANDS = """\
ls
ls --columns model,version,message
show {long}
show {long} --tree
show {long} --deep
show v1
show run.pt::model
log v1
log v3
log v1 -- encoder.transformer.stages.0.blocks.0.self_attention.query_projection.weight
blame head.weight
du
verify
verify --signed --key the-public-half-of-a-key.public.pem
sign v1 --key the-public-half-of-a-key.private.pem
alias
alias production --log
diff {long} b.pt
diff b.pt c.pt --values
diff v1 v2
diff v1 v3 --stat
diff v1 v2 --records
diff v1 v2 --map
diff {long} net.py:Net
rename {long} --rule self_attention->attn --dry-run
undo --list
fsck
gc
audit {long} b.pt
registry --help
rename --help
train --help
"""


def plain(printed: str) -> str:
    return re.sub(r"\x1b\[\d*m|\r", "", printed)


@pytest.fixture
def registry(ckpt: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Long names of everything that has a name."""
    monkeypatch.setenv("CKPT_AUTHOR", "A person of a rather long name <a.person@long.example.com>")
    old = {
        f"encoder.transformer.stages.{stage}.blocks.{3 * stage}.self_attention.{name}.weight":
        torch.full((4, 4), stage + len(name))
        for stage in range(6) for name in ("query_projection", "output_projection")
    }  # fmt: skip
    new = {key.replace("self_attention", "attn"): tensor for key, tensor in old.items()}
    torch.save(old, folder / LONG)
    torch.save({"model": old, "ema": old}, folder / "run.pt")
    torch.save({**new, "head.weight": torch.ones(3, 4)}, folder / "b.pt")
    torch.save({**new, "head.weight": torch.zeros(3, 4)}, folder / "c.pt")
    (folder / "net.py").write_text(
        "import torch.nn as nn\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.head = nn.Linear(8, 12)\n"
    )
    why = "A long message that says why this was done, by whom, and for what purpose, in one line"
    name = ("--name", "vision-transformer-large")
    metrics = ("--metric", "accuracy=0.99", "--metric", "validation_loss=0.12")
    write_pair(folder, KEY)
    for words in (
        ("register", LONG, *name, "-m", why, *metrics), ("register", "b.pt", *name),
        ("register", "c.pt", *name), ("alias", "production", "v1", "-m", why),
        ("alias", "production", "v2"), ("tag", "v1", "golden", "candidate-for-release"),
        ("note", "v1", "-m", why), ("sign", "v1", "--key", f"{KEY}private.pem"),
    ):  # fmt: skip
        assert ckpt(*words).code == 0
    return folder


@pytest.mark.parametrize(
    "command",
    long_but(
        ["card v1"],
        ["card v1", "diff v1 v2 --format markdown", "completion bash",
         "diff b.pt net.py:Net --format markdown", "guard net.py:Net --format markdown"],
    ),
)  # fmt: skip
def test_markdown_and_code_are_never_folded(ckpt: Run, registry: Path, command: str) -> None:
    """Line feeds and spaces have a meaning there."""
    words = command.split()
    if words[0] == "guard":
        assert ckpt("guard", "net.py:Net", "--snapshot").code == 0
    piped = ckpt(*words).out
    assert plain(on_a_terminal(40, *words)) == piped
    assert max(map(len, piped.splitlines())) > 40


@pytest.mark.long
@pytest.mark.parametrize("columns", [80, 120])
def test_lines_fit_the_terminal(registry: Path, columns: int) -> None:
    for command in COMMANDS.format(long=LONG).splitlines():
        printed = plain(on_a_terminal(columns, *command.split()))
        lines = printed.splitlines()
        assert lines, command
        assert "Traceback" not in printed
        too_long = [line for line in lines if len(line) > columns and "  ckpt " not in line]
        assert not too_long, (command, too_long)


@pytest.mark.long
def test_plan_of_a_rename_that_fails_fits_the_terminal(registry: Path) -> None:
    words = ("rename", LONG, "--rule", "self_attention=attn", "--check", "net.py:Net")
    plan, error, _ = plain(on_a_terminal(80, *words)).partition("error: ")
    assert "attn" in plan
    assert error
    assert [line for line in plan.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(
    "command",
    long_but(
        ["ls"],
        ["ls", "ls --columns model,version,message", "log v1", "log v2 -- head", "du",
         f"show {LONG} --tree", "blame head.weight", "diff v1 v2", f"audit {LONG} b.pt"],
    ),
)  # fmt: skip
def test_wide_prints_on_a_terminal_what_a_pipe_gets(
    ckpt: Run, registry: Path, command: str
) -> None:
    name, *words = command.split()
    piped = ckpt(name, *words).out
    assert plain(on_a_terminal(40, name, "--wide", *words)) == piped
    assert plain(on_a_terminal(40, name, *words)) != piped

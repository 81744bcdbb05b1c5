"""`ckpt help`: its texts say what the code does, and their examples run."""

import ast
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import ckpt as package
from ckpt import cli, errors
from ckpt.cli.commands import COMMANDS, TOPICS
from ckpt.show.diff import values
from tests.cli.support import Run, weights
from tests.effort import long_but

SOURCE = Path(package.__file__).parent
TEXTS = {
    path.stem: path.read_text(encoding="utf-8") for path in (SOURCE / "cli/help/topics").iterdir()
}
# What other programs set, which nobody needs to know.
UNTOLD = {"_CKPT_COMPLETE", "COMP_LINE", "COMP_WORDBREAKS", "OPENBLAS_NUM_THREADS"}


def test_every_topic_is_short_and_fits_80_columns(ckpt: Run) -> None:
    assert set(TEXTS) == set(TOPICS)
    for name, text in TEXTS.items():
        assert max(map(len, text.splitlines())) <= 80, name
        assert len(text.splitlines()) < 60
        assert ckpt("help", name).out == text


@pytest.mark.parametrize("words", [(), ("rename",), ("migrate", "new")], ids=" ".join)
def test_help_of_a_command_is_what_its_option_prints(ckpt: Run, words: tuple[str, ...]) -> None:
    ran = ckpt("help", *words)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == ckpt(*words, "--help").out


def test_topic_of_two_words(ckpt: Run) -> None:
    assert ckpt("help", "exit", "codes").out == TEXTS["exit-codes"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["refz"], "no command or topic 'refz'; near: refs, redo"),
        (["zzz"], "no command or topic 'zzz'"),
        (["remote", "ad"], "no command or topic 'ad'; near: add"),
        (["rename", "new"], "no command or topic 'new'"),
    ],
)
def test_unknown_topic_is_a_line_with_near_ones(ckpt: Run, words: list[str], said: str) -> None:
    ran = ckpt("help", *words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"error: {said}\nhint:  ckpt help\n"


def examples() -> list[str]:
    return [
        line.strip()
        for text in TEXTS.values()
        for line in text.partition("Examples:\n")[2].splitlines()
    ]


@pytest.fixture
def registry(ckpt: Run, folder: Path) -> Path:
    """What the examples name."""
    torch.save(weights(), folder / "old.pt")
    torch.save({"model": weights(), "ema": weights(1)}, folder / "run.pt")
    shutil.copytree(SOURCE.parent / "models", folder / "models")
    assert ckpt("register", "old.pt", "--name", "mnist-cnn").code == 0
    assert ckpt("rename", "v1", "--rule", "conv->embed").code == 0
    assert ckpt("alias", "prod", "v2").code == 0
    return folder


@pytest.mark.parametrize("example", long_but(["ckpt diff v1 v2", "ckpt verify --json"], examples()))
def test_example_runs(
    ckpt: Run, registry: Path, monkeypatch: pytest.MonkeyPatch, example: str
) -> None:
    words = shlex.split(example)
    while "=" in words[0]:
        monkeypatch.setenv(*words.pop(0).split("="))
    assert words[0] == "ckpt"
    ran = ckpt(*words[1:])
    assert ran.code == 0, ran.err


def test_every_exit_code_is_told() -> None:
    kinds = [errors.CkptError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    codes = {0, 1, 129, 143, cli.SYSTEM, cli.INTERRUPTED, cli.BROKEN_PIPE}
    codes |= {kind.exit_code for kind in kinds}
    words = [line.split() for line in TEXTS["exit-codes"].splitlines()]
    assert {int(line[0]) for line in words if line and line[0].isdigit()} == codes


def test_commands_that_exit_with_1_are_those_that_are_told() -> None:
    found = {
        path.stem
        for path in (SOURCE / "cli").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("exit")
        for each in ast.walk(node)
        if isinstance(each, ast.Constant) and each.value == 1
    }
    (told,) = re.findall(r"^ +1  (.*?)^ +2  ", TEXTS["exit-codes"], re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"ckpt (\w+)", told)) == found == {"diff", "guard"}


def test_every_column_of_values_is_told() -> None:
    _, _, text = TEXTS["verdicts"].partition("How far apart values are")
    for head in values.HEADS[1:]:
        assert re.search(rf"^  (.*, )?{head}\b", text, re.MULTILINE), head


def variables() -> Iterator[str]:
    """The environment variables that the code reads: constants beside `environ`, or of our own."""
    for path in [*SOURCE.rglob("*.py"), *(SOURCE.parent / "models").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        reads = "environ" in text
        for node in ast.walk(ast.parse(text)) if reads or "CKPT_" in text else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                is_ours = node.value.lstrip("_").startswith("CKPT_")
                if is_ours and node.value.replace("_", "").isalnum():
                    yield node.value
            if (
                reads
                and isinstance(node, (ast.Call, ast.Subscript, ast.comprehension, ast.GeneratorExp))
                and "environ" in (code := ast.unparse(node))
                and len(code) < 200
            ):
                yield from (
                    each.value
                    for each in ast.walk(node)
                    if isinstance(each, ast.Constant)
                    and isinstance(each.value, str)
                    and each.value.isupper()
                )


def test_every_environment_variable_is_told() -> None:
    told = {word.strip(",;:") for word in TEXTS["environment"].split()}
    found = set(variables()) - UNTOLD
    assert {"CKPT_DATA", "HF_TOKEN", "RANK", "AWS_REGION", "TERM", "CKPT_STORE"} <= found
    assert found <= told
    assert {word for word in told if word.startswith("CKPT_") and "=" not in word} <= found


def test_every_file_of_a_registry_is_told(registry: Path) -> None:
    found = {path.name for path in (registry / ".ckpt").iterdir()}
    told = {
        word.removeprefix(".ckpt/").rstrip("/")
        for word in TEXTS["files"].split()
        if word.startswith(".ckpt/")
    }
    assert found <= told


def test_overview_names_every_command_and_topic(ckpt: Run) -> None:
    out = ckpt("help").out
    assert all(f"  {name} " in out for name in (*COMMANDS, *TOPICS))

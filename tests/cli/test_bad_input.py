"""Bad input gets one line on stderr and the exit code of the contract; nothing is written."""

import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.cli.support import Ran, Run, tree, weights


class Hostile:
    def __reduce__(self):
        return os.system, ("touch canary",)


def expect_refused(ran: Ran, code: int, *says: str) -> None:
    assert ran.code == code
    assert ran.out == ""
    lines = ran.err.splitlines()
    assert lines[0].startswith("error: ")
    assert all(line.startswith(("hint:  ", "       ")) for line in lines[1:])
    for text in says:
        assert text in ran.err


def hostile(path: Path) -> None:
    torch.save(weights(), path)
    data = pickle.dumps({"a": Hostile()}, protocol=2)
    with zipfile.ZipFile(path) as good, zipfile.ZipFile(path.with_suffix(".tmp"), "w") as bad:
        for name in good.namelist():
            bad.writestr(name, data if name.endswith("data.pkl") else good.read(name))
    path.with_suffix(".tmp").rename(path)


COMMANDS = [
    ("show", "bad.pt"),
    ("diff", "bad.pt", "ckpt.models.mnist_cnn:Net"),
    ("rename", "bad.pt", "--rule", "conv=embed"),
    ("register", "bad.pt"),
    ("export", "bad.pt", "-o", "x.safetensors"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_fault_01_foreign_global_is_refused_by_every_command(
    ckpt: Run, folder: Path, command: tuple[str, ...]
) -> None:
    hostile(folder / "bad.pt")
    before = tree(folder)
    expect_refused(ckpt(*command), 3, "bad.pt", "refused global", "system", "offset")
    assert tree(folder) == before


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "HTML"),
        (b"hello, world, this is no checkpoint at all", "bad.pt"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 64, "PNG"),
    ],
    ids=["empty", "lfs", "html", "text", "png"],
)
def test_fault_11_what_is_no_checkpoint_is_named(
    ckpt: Run, folder: Path, command: tuple[str, ...], data: bytes, says: str
) -> None:
    (folder / "bad.pt").write_bytes(data)
    before = tree(folder)
    expect_refused(ckpt(*command), 3, "bad.pt", says)
    assert tree(folder) == before


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _archive(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pt"))


ODD = [
    (Path.mkdir, 3, "a folder without a checkpoint"),
    (_fifo, 3, "not a regular file"),
    (_loop, 2, "symbolic links"),
    (_device, 3, "not a regular file"),
    (_archive, 3, "unpack it first: tar -xf"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
@pytest.mark.parametrize(("make", "code", "says"), ODD, ids=[make.__name__ for make, *_ in ODD])
def test_fault_11_what_is_no_file_is_named(
    ckpt: Run,
    folder: Path,
    command: tuple[str, ...],
    make: Callable[[Path], None],
    code: int,
    says: str,
) -> None:
    make(folder / "bad.pt")
    before = sorted(folder.iterdir())
    expect_refused(ckpt(*command), code, "bad.pt", says)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_truncated_file_is_refused(ckpt: Run, folder: Path, command: tuple[str, ...]) -> None:
    torch.save(weights(), folder / "bad.pt")
    os.truncate(folder / "bad.pt", 1_000_000)
    before = tree(folder)
    expect_refused(ckpt(*command), 3, "bad.pt")
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("show", "v1"), 2, "the registry holds 0 models"),
        (("show", "nothing.pt"), 2, "nothing.pt: no such file"),
        (("show", "models/nothing.py:Net"), 2, "no such file"),
        (("diff", "old.pt", "mnist:prod"), 2, "mnist:prod: no registry, and no such module"),
        (("diff", "old.pt"), 2, "Missing argument 'B'"),
        (("renam", "old.pt"), 2, "did you mean 'rename'?"),
        (("rename", "old.pt"), 2, "no rules given"),
        (("rename", "old.pt", "--rule", "conv"), 2, "has no arrow"),
        (("rename", "old.pt", "--rule", "conv->"), 2, "nothing after the arrow"),
        (("rename", "old.pt", "--rule", r"conv\d->x"), 3, "two keys would become 'x.weight'"),
        (("rename", "old.pt", "--rule", "conv9->x"), 3, "nearest keys: conv"),
        (("rename", "old.pt", "--map", "names.json"), 2, "names.json: no such file"),
        (("rename", "old.pt", "--rule", "a=b", "--name", "m"), 2, "--name needs --register"),
        (("rename", "old.pt", "--rule", "conv=embed", "-o", "old.pt"), 2, "never overwritten"),
        (("rename", "old.pt", "--rule", "conv=embed", "-o", "no/x.pt"), 2, "no: no such folder"),
        (("export", "old.pt", "-o", "no/x.pt"), 2, "no: no such folder"),
        (("register", "old.pt", "--name", "../x"), 2, "not a valid name"),
        (("register", "old.pt", "--metric", "accuracy=nan"), 2, "not NAME=NUMBER"),
        (("export", "old.pt", "-o", "x.txt"), 2, "x.txt"),
        (("show", "old.pt::optimizer"), 3, "optimizer"),
        (("ls", "--registry", "nowhere"), 2, "nowhere: no such folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_meant_is_answered_in_a_line(
    ckpt: Run, old: Path, folder: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    before = tree(folder)
    expect_refused(ckpt(*words), code, says)
    assert tree(folder) == before


def test_no_command_at_all_shows_the_help(ckpt: Run) -> None:
    ran = ckpt()
    assert ran.code == 0
    assert "Commands:\n  diff " in ran.out


def test_output_that_stands_is_kept_unless_forced(ckpt: Run, old: Path, folder: Path) -> None:
    (folder / "old.renamed.pt").write_text("precious")
    expect_refused(ckpt("rename", "old.pt", "--rule", "conv=embed"), 2, "already exists")
    assert (folder / "old.renamed.pt").read_text() == "precious"
    assert ckpt("rename", "old.pt", "--rule", "conv=embed", "--force").code == 0
    assert (folder / "old.renamed.pt").stat().st_size > 2_000_000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1]", "not a map; expected an object"),
        ("{}", "not a map; expected an object"),
        ('{"conv1": 1}', "both must be non-empty strings"),
        ('{"conv1": "a", "conv1": "b"}', "appears twice"),
        ("{", "a map or list of rules is JSON"),
        ('{"conv9": "a"}', "'conv9' is not one of the 8 keys"),
    ],
)
def test_map_that_is_none_is_refused(
    ckpt: Run, old: Path, folder: Path, text: str, says: str
) -> None:
    (folder / "names.json").write_text(text)
    ran = ckpt("rename", "old.pt", "--map", "names.json")
    expect_refused(ran, 3 if "is not one of" in says else 2, says)


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("typed", "rule", "why"),
    [
        ("conv->embed", "conv-", "has no arrow"),
        ("conv=>embed", "conv=", "has nothing after the ="),
    ],
)
def test_shell_that_ate_the_arrow_is_answered_with_what_to_type(
    old: Path, folder: Path, typed: str, rule: str, why: str
) -> None:
    ran = shell(f"ckpt rename old.pt --rule {typed}", folder)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr == (
        f"error: --rule '{rule}' {why}; an unquoted > sends the output into the file 'embed'\n"
        "hint:  ckpt rename old.pt --rule 'conv->embed'     or, without quotes,  "
        "--rule conv=embed\n"
        "       the shell made an empty file 'embed' in this folder\n"
    )


def test_shell_trap_comes_before_the_file_is_read(ckpt: Run, folder: Path) -> None:
    expect_refused(ckpt("rename", "nothing.pt", "--rule", "conv-"), 2, "has no arrow")


def test_fault_24_hostile_keys_reach_no_terminal(ckpt: Run, folder: Path) -> None:
    evil = {"\x1b[2Jkey": torch.zeros(2), "a\nb": torch.zeros(2), "\u202ert": torch.zeros(2)}
    torch.save(evil, folder / "evil.pt")
    for words in (
        ("show", "evil.pt"),
        ("show", "evil.pt", "--json"),
        ("diff", "evil.pt", "ckpt.models.mnist_cnn:Net"),
        ("rename", "evil.pt", "--rule", "key=name"),
        ("rename", "evil.pt", "--rule", "nothing=name"),
        ("register", "evil.pt", "-m", "\x1b]0;title\x07"),
        ("ls",),
        ("log", "v1"),
    ):
        ran = ckpt(*words)
        text = ran.out + ran.err
        assert all(char.isprintable() or char == "\n" for char in text), (words, text)


def test_fault_24_broken_pipe_is_quiet(old: Path, folder: Path) -> None:
    torch.save({f"layer.{i}.weight": torch.zeros(1) for i in range(5000)}, folder / "many.pt")
    ran = shell("ckpt show many.pt | head -1", folder)
    assert ran.stderr == ""
    assert len(ran.stdout.splitlines()) == 1


def test_fault_24_ascii_terminal(old: Path, folder: Path) -> None:
    ran = shell("LANG=C PYTHONUTF8=0 PYTHONIOENCODING=ascii ckpt show old.pt", folder)
    assert ran.returncode == 0
    assert ran.stdout.isascii()


def test_system_error_is_5_and_never_1(ckpt: Run, old: Path, folder: Path) -> None:
    ran = shell("ulimit -f 100; ckpt rename old.pt --rule conv=embed", folder)
    assert ran.returncode == 5
    assert ran.stderr.startswith("error: old.renamed.pt: ")
    assert sorted(path.name for path in folder.iterdir()) == ["old.pt"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("export", "old.pt", "-o", "s3://b/x.pt"), "s3://b/x.pt is a URL, expected a path"),
        (("site", "-o", "https://u:p@h/x"), "https://…@h/x is a URL, expected a path"),
        (("rename", "old.pt", "--map", "https://h/x"), "https://h/x is a URL, expected a path"),
        (
            ("rename", "old.pt", "--rule", "conv->a", "-o", "https://h/x.pt"),
            "https://h: not in a bucket (s3://, gs://, az://)",
        ),
    ],
)
def test_url_where_only_a_path_can_be(
    words: tuple[str, ...], said: str, ckpt: Run, old: Path
) -> None:
    ran = ckpt(*words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert not list(Path.cwd().glob("*:*"))

"""`ckpt import`: a folder of checkpoints becomes versions, each once, oldest first."""

import os
import re
import shutil
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import ckpt as package
from tests.cli.support import Run, tree

DAY = 86_400
TIMES = {"epoch_1.pt": 3, "epoch_2.pt": 2, "epoch_10.pt": 1}  # days after the first


def save(path: Path, value: float, *, days: float) -> None:
    torch.save({"w": torch.full((4,), value)}, path)
    dated(path, days)


def dated(path: Path, days: float) -> None:
    seconds = 1_700_000_000 + days * DAY
    os.utime(path, (seconds, seconds))


@pytest.fixture
def runs(folder: Path) -> Path:
    """Three epochs, the last of them the oldest file."""
    made = folder / "runs" / "run1"
    made.mkdir(parents=True)
    for name, days in TIMES.items():
        save(made / name, int(name.removeprefix("epoch_").removesuffix(".pt")), days=days)
    return folder / "runs"


def versions(name: str = "runs") -> list[tuple[str, str]]:
    found = package.Registry().versions(name)
    return [(version.label, version.made_by) for version in found][::-1]


def test_files_become_versions_in_the_order_of_their_times(ckpt: Run, runs: Path) -> None:
    ran = ckpt("import", "folder:runs")
    assert (ran.code, ran.err) == (0, f"created a registry: {runs.parent / 'registry.json'}\n")
    assert ran.out == (
        "from              version    made\n"
        "----------------  ---------  ----------  ---\n"
        "run1/epoch_10.pt  v1         2023-11-15  new\n"
        "run1/epoch_2.pt   v2         2023-11-16  new\n"
        "run1/epoch_1.pt   v3         2023-11-17  new\n"
        "\n"
        "added 3 versions of runs\n"
    )
    for version, value in (("v1", 10.0), ("v2", 2.0), ("v3", 1.0)):
        assert torch.equal(package.load(version)["w"], torch.full((4,), value))
    (newest, *_) = package.Registry().versions()
    assert newest.created == "2023-11-17T22:13:20+00:00"
    assert ckpt("export", "v3", "-o", "back.pt").code == 0
    assert Path("back.pt").read_bytes() == (runs / "run1/epoch_1.pt").read_bytes()


def test_names_are_ordered_with_numbers_by_value(ckpt: Run, runs: Path) -> None:
    assert ckpt("import", "folder:runs", "--by-name", "--name", "net").code == 0
    assert [made for _, made in versions("net")] == [
        "import run1/epoch_1.pt",
        "import run1/epoch_2.pt",
        "import run1/epoch_10.pt",
    ]


def test_dry_run_prints_the_same_plan_and_writes_nothing(ckpt: Run, runs: Path) -> None:
    shutil.copy(runs / "run1/epoch_2.pt", runs / "best.pt")
    before = tree(runs.parent)
    planned = ckpt("import", "folder:runs", "--dry-run")
    assert (planned.code, tree(runs.parent)) == (0, before)
    done = ckpt("import", "folder:runs")
    said = planned.out.replace("would add", "added").replace("would point", "points")
    assert said == done.out


def test_second_import_adds_only_what_is_new(ckpt: Run, runs: Path) -> None:
    assert ckpt("import", "folder:runs").code == 0
    before = Path("registry.json").read_bytes()
    again = ckpt("import", "folder:runs")
    assert (again.code, Path("registry.json").read_bytes()) == (0, before)
    assert again.out.endswith("added 0 versions of runs, 3 known already\n")
    save(runs / "older.pt", 7, days=0)
    more = ckpt("import", "folder:runs", "--json").data
    assert [it["version"] for it in more["items"] if it["did"] == "new"] == ["v4"]


def test_what_was_removed_is_not_brought_back(ckpt: Run, runs: Path) -> None:
    assert ckpt("import", "folder:runs").code == 0
    assert ckpt("rm", "v2", "--yes").code == 0
    assert "v2         2023-11-16  was removed here\n" in ckpt("import", "folder:runs").out
    assert [label for label, _ in versions()] == ["v1", "v3"]


def test_import_goes_on_where_it_was_interrupted(
    ckpt: Run, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ckpt.ops.import_ import adding

    register, calls = adding.register, []

    def interrupted(*words: object, **named: object) -> object:
        calls.append(words)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return register(*words, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(adding, "register", interrupted)
        assert ckpt("import", "folder:runs").code == 130
    assert [label for label, _ in versions()] == ["v1", "v2"]
    assert ckpt("import", "folder:runs").code == 0
    assert versions()[-1] == ("v3", "import run1/epoch_1.pt")


def test_best_and_last_become_aliases(ckpt: Run, runs: Path) -> None:
    shutil.copy(runs / "run1/epoch_2.pt", runs / "run1/best.pt")
    dated(runs / "run1/best.pt", days=-1)  # read first, and not a version all the same
    (runs / "run1/last.pt").symlink_to("epoch_1.pt")
    ran = ckpt("import", "folder:runs")
    assert ran.code == 0
    assert [made for _, made in versions()] == [
        "import run1/epoch_10.pt", "import run1/epoch_2.pt", "import run1/epoch_1.pt",
    ]  # fmt: skip
    pointed = {each.ref: each.version for each in package.aliases()}
    assert pointed == {"runs@best": "v2", "runs@last": "v3"}


def test_best_with_bytes_of_its_own_is_a_version_with_the_alias(ckpt: Run, runs: Path) -> None:
    save(runs / "run1/best.pt", 5, days=1.5)
    assert ckpt("import", "folder:runs").code == 0
    assert versions()[1] == ("v2", "import run1/best.pt")
    assert [(each.ref, each.version) for each in package.aliases()] == [("runs@best", "v2")]


def test_best_of_each_run_has_the_runs_name(ckpt: Run, runs: Path) -> None:
    shutil.copytree(runs / "run1", runs / "run2")
    shutil.copy(runs / "run1/epoch_2.pt", runs / "run1/best.pt")
    shutil.copy(runs / "run1/epoch_1.pt", runs / "run2/best.pt")
    assert ckpt("import", "folder:runs").code == 0
    assert [label for label, _ in versions()] == ["v1", "v2", "v3"]
    pointed = {each.name: each.version for each in package.aliases()}
    assert pointed == {"run1-best": "v2", "run2-best": "v3"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("alias", "best", "v1"), "runs@best points to v1 here, and points to v2 there; "
         "to move it:  ckpt alias runs@best v2 --expect v1\n"),
        (("alias", "-d", "runs@best"), "runs@best was deleted here, and points to v2 there; "
         "to move it:  ckpt alias runs@best v2\n"),
    ],
    ids=["moved", "deleted"],
)  # fmt: skip
def test_alias_that_was_changed_here_stays(
    ckpt: Run, runs: Path, change: tuple[str, ...], said: str
) -> None:
    shutil.copy(runs / "run1/epoch_2.pt", runs / "best.pt")
    assert ckpt("import", "folder:runs").code == 0
    assert ckpt(*change).code == 0
    before = Path("registry.json").read_bytes()
    again = ckpt("import", "folder:runs")
    assert (again.code, Path("registry.json").read_bytes()) == (0, before)
    assert said in again.out


def test_folder_with_a_config_is_one_checkpoint_with_side_files(ckpt: Run, runs: Path) -> None:
    step = runs / "checkpoint-500"
    step.mkdir()
    save_file({"w": torch.ones(3)}, step / "model.safetensors")
    (step / "config.json").write_text('{"hidden": 3}')
    torch.save({"state": {}}, step / "optimizer.pt")
    dated(step / "model.safetensors", days=9)
    assert ckpt("import", "folder:runs").code == 0
    assert versions()[-1] == ("v4", "import checkpoint-500")
    assert ckpt("export", "v4", "-o", "back").code == 0
    assert sorted(path.name for path in Path("back").iterdir()) == [
        "config.json", "model.safetensors",
    ]  # fmt: skip


def test_what_cannot_be_imported_is_a_line_each_and_the_rest_is(ckpt: Run, runs: Path) -> None:
    (runs / "broken.pt").write_bytes((runs / "run1/epoch_1.pt").read_bytes()[:600])
    (runs / "\x1b[31mred.pt").write_text("no checkpoint")
    (runs / "out.pt").symlink_to("/etc/hostname")
    (runs / "gone.pt").symlink_to("nothing.pt")
    torch.save({"state": {}}, runs / "optimizer.pt")
    ran = ckpt("import", "folder:runs")
    assert ran.code == 3
    assert len(versions()) == 3
    lines = ran.err.splitlines()[1:]
    assert [line.partition(": ")[2].partition(": ")[0] for line in lines] == [
        "broken.pt", r"\x1b[31mred.pt", "gone.pt", "out.pt",
    ]  # fmt: skip
    assert all(line.startswith("not imported: ") for line in lines)
    assert "gone.pt: a link to nothing" in ran.err
    assert "out.pt: a link that leads out of the folder" in ran.err
    assert "skipped: what a trainer keeps beside the weights\n" in ran.out
    assert ran.out.endswith("added 3 versions of runs, 4 not imported\n")
    assert "\x1b" not in ran.out + ran.err


def test_module_comes_in_as_its_state_dict_and_nothing_is_run(ckpt: Run, runs: Path) -> None:
    net = torch.nn.Linear(3, 2)
    torch.save(net, runs / "whole.pt")
    dated(runs / "whole.pt", days=9)
    ran = ckpt("import", "folder:runs")
    assert ran.code == 0
    assert "without classes: 1 checkpoint, e.g. whole.pt: the module " in ran.err
    assert ckpt("export", "v4", "-o", "back.pt").code == 0
    back = torch.load("back.pt", weights_only=True)
    assert all(torch.equal(back[key], tensor) for key, tensor in net.state_dict().items())
    assert ckpt("import", "folder:runs", "--name", "kept", "--keep-opaque").code == 0
    assert ckpt("export", "kept:v4", "--keep-opaque", "-o", "whole.pt").code == 0
    assert Path("whole.pt").read_bytes() == (runs / "whole.pt").read_bytes()


def test_file_that_would_lose_something_needs_a_word(ckpt: Run, runs: Path) -> None:
    held = {"w": torch.ones(2), "args": Namespace(lr=0.1), "keys": re.compile("w")}
    torch.save(held, runs / "more.pt")
    ran = ckpt("import", "folder:runs")
    assert ran.code == 3
    assert "not imported: more.pt: runs code when unpickled: re._compile at offset " in ran.err
    assert "  --drop-opaque  writes the file without such objects\n" in ran.err
    assert ckpt("import", "folder:runs", "--drop-opaque").code == 0
    assert len(versions()) == 4


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("runs", "error: 'runs' is not a source of versions\nhint:  ckpt import folder:runs\n"),
        ("folder:", "error: 'folder:' is not a source of versions\n"
         "hint:  ckpt import folder:PATH,  mlflow:models/NAME  or  oci://HOST/TEAM/MODEL:TAG\n"),
        ("mlflow:models/", "error: 'mlflow:models/' is not a source of versions\n"
         "hint:  ckpt import folder:PATH,  mlflow:models/NAME  or  oci://HOST/TEAM/MODEL:TAG\n"),
        ("runs/run1/epoch_1.pt", "error: 'runs/run1/epoch_1.pt' is not a source of versions\n"
         "hint:  to register one file:  ckpt register runs/run1/epoch_1.pt\n"),
        ("folder:nothing", "error: nothing: no such folder\n"),
        ("folder:empty", "error: empty: no checkpoint in it or below\n"
         "hint:  it looks for .pt, .pth, .bin, .ckpt, .safetensors\n"),
        ("wandb:team/net", "error: wandb:team/net: W&B is not supported\n"
         "hint:  wandb artifact get ENTITY/PROJECT/NAME:v0 --root runs/v0  for each version, then\n"
         "       ckpt import folder:runs --by-name --name NAME\n"),
    ],
    ids=["path", "no-path", "no-model", "file", "missing", "empty", "wandb"],
)  # fmt: skip
def test_source_that_holds_nothing(ckpt: Run, runs: Path, source: str, said: str) -> None:
    (runs.parent / "empty").mkdir()
    ran = ckpt("import", source)
    assert (ran.code, ran.out, ran.err) == (2, "", said)
    assert not Path("registry.json").exists()


def test_every_byte_of_a_folder_stays_as_it_was(ckpt: Run, runs: Path) -> None:
    before = tree(runs)
    assert ckpt("import", "folder:runs").code == 0
    assert tree(runs) == before

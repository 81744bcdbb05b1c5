"""`ckpt guard`: the gate that a refactoring has to pass."""

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from shlex import split

import pytest
import torch

import ckpt as package
from tests.cli.support import Git, Ran, Run, commit, tree
from tests.effort import PATIENCE

NET = """\
from torch import nn


class Other(nn.Module):
    pass


class Net(nn.Module):
    def __init__(self, depth=2):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3)
        self.conv2 = nn.Conv2d(8, 16, 3)
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(depth))
"""
FIXED = "  models/net.py:Net  checkpoints of HEAD  fits by conv-to-embed\n"


@pytest.fixture
def net(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`models/net.py`, guarded by `pyproject.toml`; a busy machine takes long to build it."""
    monkeypatch.setattr("ckpt.ops.guard.settings.USUAL_SECONDS", PATIENCE)
    path = folder / "models" / "net.py"
    path.parent.mkdir()
    path.write_text(NET)
    guarded(folder, '"models/net.py:Net"')
    return path


def guarded(folder: Path, entry: str, more: str = "") -> None:
    (folder / "pyproject.toml").write_text(f"[tool.ckpt]\n{more}\nguard = [{entry}]\n")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def build(path: Path, depth: int = 2) -> torch.nn.Module:
    """The class as its file has it now, by Python alone."""
    spec = importlib.util.spec_from_file_location("net", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    built: torch.nn.Module = module.Net(depth)
    return built


@pytest.fixture
def register(ckpt: Run, net: Path, folder: Path) -> Callable[..., None]:
    """Register weights of the class as it is, as the next version of `net`."""

    def registered(*words: str, depth: int = 2) -> None:
        torch.save(build(net, depth).state_dict(), folder / "net.pt")
        assert ckpt("register", "net.pt", *words).code == 0

    return registered


@pytest.mark.long
def test_versions_fit_then_break_then_fit_by_a_migration(
    ckpt: Run, net: Path, folder: Path, register: Callable[..., None]
) -> None:
    guarded(folder, '{definition = "models/net.py:Net", models = ["net"]}')
    register()
    assert ckpt("alias", "prod", "net:v1").code == 0
    register()
    ran = ckpt("guard")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[2:] == ["  models/net.py:Net  net@prod (v1), net:v2  fits"]

    edit(net, "conv", "embed")
    before = tree(folder)
    ran = ckpt("guard")
    assert (ran.code, ran.err) == (1, "")
    assert ran.out == (
        "models/net.py:Net no longer loads net@prod (v1), net:v2\n"
        "\n"
        "  conv1.weight  ->  embed1.weight\n"
        "  conv1.bias    ->  embed1.bias\n"
        "  conv2.weight  ->  embed2.weight\n"
        "  conv2.bias    ->  embed2.bias\n"
        "  4 renamed\n"
        "\n"
        "To keep old checkpoints loading:  ckpt guard --fix\n"
        "  it writes models/migrations/conv-to-embed.toml\n"
    )
    assert tree(folder) == before

    ran = ckpt("guard", "--fix")
    assert (ran.code, ran.err) == (0, "")
    wrote = "wrote models/migrations/conv-to-embed.toml; commit it with the change of the class"
    assert ran.out.splitlines()[2:] == [
        "  models/net.py:Net  net@prod (v1), net:v2  fits by conv-to-embed",
        "",
        wrote,
    ]

    # The migration does what the guard says: the oracle is torch.
    loaded = ckpt("migrate", "run", "v1", "--to", "models/net.py:Net", "-o", "new.pt")
    assert loaded.code == 0
    build(net).load_state_dict(torch.load(folder / "new.pt"), strict=True)
    register()
    ran = ckpt("guard")
    assert (ran.code, "net:v3" in ran.out) == (0, True)


@pytest.mark.long
def test_second_refactoring_needs_one_migration_for_all_versions(
    ckpt: Run, net: Path, folder: Path, register: Callable[..., None]
) -> None:
    guarded(folder, '{definition = "models/net.py:Net", models = ["net"]}')
    register()
    edit(net, "conv", "embed")
    assert ckpt("guard", "--fix").code == 0
    register("-m", "embed")
    register(depth=5)
    edit(net, "self.blocks", "self.layers")
    ran = ckpt("guard", "--fix")
    assert "models/net.py:Net no longer loads net:v3" in ran.out  # it has another depth
    assert len([*(folder / "models" / "migrations").glob("*.toml")]) == 2
    ran = ckpt("guard", "--arg", "depth=5", "--json")
    verdicts = {
        weights["name"]: (verdict["fits"], verdict["by"])
        for verdict in ran.data["classes"][0]["verdicts"]
        for weights in verdict["weights"]
    }
    assert verdicts["net:v3"] == (True, "blocks-to-layers")


@pytest.mark.parametrize(
    ("versions", "named"),
    [
        ("all", "net@prod (v2), net:v1, net:v3"),
        ("latest", "net:v3"),
        ("aliases", "net@prod (v2)"),
    ],
)
def test_settings_choose_the_versions_and_removed_ones_are_never_looked_at(
    ckpt: Run,
    net: Path,
    folder: Path,
    register: Callable[..., None],
    versions: str,
    named: str,
) -> None:
    for _ in range(4):
        register()
    assert ckpt("alias", "prod", "net:v2").code == 0
    assert ckpt("rm", "net:v4", "--yes").code == 0
    guarded(
        folder,
        f'{{definition = "models/net.py:Net", models = ["net"], versions = "{versions}"}}',
    )
    (row,) = ckpt("guard").out.splitlines()[2:]
    assert re.split("  +", row.strip()) == ["models/net.py:Net", named, "fits"]


@pytest.mark.long
def test_models_are_by_default_those_that_were_made_with_the_class(
    ckpt: Run, net: Path, folder: Path, register: Callable[..., None]
) -> None:
    register()
    ran = ckpt("guard")
    guard = 'guard = [{definition = "models/net.py:Net", models = ["net"]}]'
    assert (ran.code, ran.err) == (
        2,
        "error: models/net.py:Net: nothing to load: it has no snapshot, and no version was made "
        "with it\n"
        "hint:  to keep loading versions of the registry, in pyproject.toml:\n"
        "       [tool.ckpt]\n"
        f"       {guard}\n"
        "       to keep loading the keys that it has now:\n"
        "       ckpt guard --snapshot models/net.py:Net\n"
        "       to compare it with another revision:\n"
        "       ckpt guard models/net.py:Net --against git:origin/main\n",
    )
    (folder / "pyproject.toml").write_text(f"[tool.ckpt]\n{guard}\n")
    assert ckpt("guard").out.splitlines()[2:] == ["  models/net.py:Net  net:v1       fits"]
    guarded(folder, '"models/net.py:Net"')
    edit(net, "conv", "embed")
    assert ckpt("rename", "net:v1", "--to", "models/net.py:Net").code == 0
    ran = ckpt("guard")
    assert (ran.code, "no longer loads net:v1" in ran.out) == (1, True)
    assert "net:v2" in ran.out


@pytest.mark.long
def test_version_in_the_place_of_a_revision(
    ckpt: Run, git: Git, net: Path, folder: Path, register: Callable[..., None]
) -> None:
    register()
    commit(git)
    assert ckpt("alias", "prod", "net:v1").code == 0
    for typed in ("net@prod", "git:net@prod", "v1"):
        ran = ckpt("guard", "models/net.py:Net", "--against", typed)
        ref = typed.removeprefix("git:")
        assert (ran.code, ran.err) == (
            2,
            f"error: {typed}: a version, expected a revision of git, such as git:origin/main\n"
            "hint:  to see whether the class loads it:\n"
            f"       ckpt diff {ref} models/net.py:Net\n"
            "       to keep loading versions of the registry, in pyproject.toml:\n"
            "       [tool.ckpt]\n"
            '       guard = [{definition = "models/net.py:Net", models = ["net"]}]\n',
        )
        assert "fits models/net.py:Net" in ckpt("diff", ref, "models/net.py:Net").out
    git("tag", "v1")
    assert ckpt("guard", "models/net.py:Net", "--against", "v1").code == 0
    missing = ckpt("guard", "models/net.py:Net", "--against", "net@staging")
    assert missing.err.startswith("error: git:net@staging: no such revision in ")


@pytest.mark.long
def test_snapshot_guards_a_class_without_weights(ckpt: Run, net: Path, folder: Path) -> None:
    ran = ckpt("guard", "--snapshot")
    path = "models/migrations/schemas/Net.json"
    assert (ran.code, ran.out) == (0, f"wrote {path}  models/net.py:Net, 8 keys\n")
    first = (folder / path).read_text()
    assert first.splitlines()[6] == '  ["conv1.bias", "float32", [8]],'
    assert json.loads(first)["definition"] == "net.py:Net"
    assert ckpt("guard", "--snapshot").code == 0
    assert (folder / path).read_text() == first
    assert ckpt("guard").out.splitlines()[2:] == [f"  models/net.py:Net  snapshot {path}  fits"]

    edit(net, "conv", "embed")
    ran = ckpt("guard", "--fix")
    assert ran.code == 0
    renew = "its snapshot is older; renew it:  ckpt guard --snapshot models/net.py:Net"
    assert ran.out.splitlines()[-1] == renew
    ran = ckpt("guard", "--snapshot", "models/net.py:Net")
    assert ran.out == f"wrote {path}  models/net.py:Net, 8 keys; it replaces another one\n"
    assert ran.err == ""
    assert renew not in ckpt("guard").out
    edit(net, "embed", "stem")
    assert "no migration leads from the keys of the earlier" in ckpt("guard", "--snapshot").err


@pytest.mark.long
def test_snapshots_are_of_one_configuration_each(ckpt: Run, net: Path, folder: Path) -> None:
    ref = "models/net.py:Net(depth=3)"
    assert ckpt("guard", "--snapshot", "models/net.py:Net", "--arg", "depth=3").code == 0
    assert ckpt("guard", "--snapshot", "models/net.py:Net").code == 0
    names = {it.name for it in (folder / "models" / "migrations" / "schemas").iterdir()}
    assert names == {"Net.json", "Net-depth-3.json"}
    assert ckpt("guard", ref).code == 0
    assert ckpt("guard", "models/net.py:Net", "--arg", "depth=3").code == 0
    assert ckpt("guard", "models/net.py:Net(depth=4)").code == 2  # it has no snapshot


@pytest.mark.long
def test_against_a_revision_needs_no_registry_and_no_snapshot(
    ckpt: Run, net: Path, git: Git, folder: Path
) -> None:
    commit(git)
    assert ckpt("guard", "--against", "git:HEAD").code == 0
    edit(net, "conv", "embed")
    ran = ckpt("guard", "--against", "git:HEAD")
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.startswith("models/net.py:Net no longer loads checkpoints of HEAD\n")
    assert "ckpt guard --fix --against git:HEAD\n  it writes models/migrations/conv" in ran.out
    ran = ckpt("guard", "--against", "git:HEAD", "--fix")
    assert (ran.code, FIXED in ran.out) == (0, True)
    assert git("status", "--porcelain").stdout == " M models/net.py\n?? models/migrations/\n"


RUNS = """
    def forward(self, images):
        return self.blocks[1](self.blocks[0](self.conv2(self.conv1(images)).{}((2, 3))[:, :4]))
"""


@pytest.mark.long
def test_migration_against_a_revision_is_proved(
    ckpt: Run, net: Path, git: Git, folder: Path
) -> None:
    net.write_text(NET + RUNS.format("mean"))
    commit(git)
    edit(net, "conv", "embed")
    ran = ckpt("guard", "--against", "git:HEAD", "--fix")
    assert (ran.code, ran.err) == (0, "")
    assert FIXED in ran.out
    written = (folder / "models" / "migrations" / "conv-to-embed.toml").read_text()
    assert "how = 'proved'" in written
    old = build_at(folder, git).state_dict()
    torch.save(old, folder / "old.pt")
    assert ckpt("migrate", "run", "old.pt", "--to", "models/net.py:Net", "-o", "new.pt").code == 0
    new, images = build(net), torch.rand(2, 1, 9, 9)
    new.load_state_dict(torch.load(folder / "new.pt"), strict=True)
    before = build_at(folder, git)
    before.load_state_dict(old)
    assert torch.equal(new(images), before(images))


@pytest.mark.long
def test_migration_between_classes_that_compute_otherwise_is_not_written(
    ckpt: Run, net: Path, git: Git, folder: Path
) -> None:
    net.write_text(NET + RUNS.format("mean"))
    commit(git)
    edit(net, "conv", "embed")
    edit(net, ".mean(", ".amax(")
    ran = ckpt("guard", "--against", "git:HEAD", "--fix")
    assert (ran.code, ran.err) == (1, "")
    assert "  no migration: models/net.py:Net at " in ran.out
    assert "give different outputs" in ran.out
    command = "ckpt migrate new models/net.py:Net --from git:HEAD --no-prove"
    assert f"; to write it all the same:  {command}\n" in ran.out
    assert not (folder / "models" / "migrations").exists()
    assert ckpt(*split(command)[1:]).code == 0
    assert ckpt("guard", "--against", "git:HEAD").code == 0


def build_at(folder: Path, git: Git) -> torch.nn.Module:
    """The class as the last commit has it, by Python alone."""
    (folder / "at_head.py").write_text(git("show", "HEAD:models/net.py").stdout)
    return build(folder / "at_head.py")


@pytest.mark.long
def test_new_and_removed_classes_are_remarks(ckpt: Run, net: Path, git: Git, folder: Path) -> None:
    guarded(folder, '"models/net.py:Net", "models/net.py:Other"')
    commit(git)
    edit(net, "class Other(nn.Module):\n    pass", "")
    ran = ckpt("guard", "--against", "HEAD")
    assert (ran.code, ran.out.splitlines()[2:]) == (
        3, ["  models/net.py:Net  checkpoints of HEAD  fits"],
    )  # fmt: skip
    assert ran.err == (
        "error: models/net.py: has no class Other\n"
        "hint:  it was there at HEAD: guard its new name, or remove it here too\n"
    )
    guarded(folder, '"models/net.py:Net"')
    ran = ckpt("guard", "--against", "HEAD")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[2:] == [
        "  models/net.py:Net    checkpoints of HEAD  fits",
        "  models/net.py:Other                       is no longer guarded since HEAD",
    ]
    commit(git)
    (folder / "models" / "new.py").write_text("from torch import nn\nclass New(nn.Flatten): pass\n")
    guarded(folder, '"models/net.py:Net", "models/new.py:New"')
    ran = ckpt("guard", "--against", "HEAD")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[3:] == [
        "  models/new.py:New                       is new since HEAD"
    ]


@pytest.mark.long
@pytest.mark.parametrize(
    ("place", "name"), [("models/other.py", "Net"), ("models/net.py", "Model")],
    ids=["moved", "renamed"],
)  # fmt: skip
def test_class_of_another_name_or_file_must_load_the_checkpoints_of_the_old_one(
    ckpt: Run, net: Path, git: Git, folder: Path, place: str, name: str
) -> None:
    move(net, git, place, name)
    ran = ckpt("guard", "--against", "git:HEAD")
    assert (ran.code, ran.err) == (1, "")
    says = f"{place}:{name} no longer loads checkpoints of models/net.py:Net at HEAD\n"
    assert ran.out.startswith(says)
    assert "no longer guarded" not in ran.out


@pytest.mark.long
def test_class_of_another_name_and_file_gets_a_migration_from_the_old_one(
    ckpt: Run, net: Path, git: Git, folder: Path
) -> None:
    move(net, git, "new.py", "New")
    assert ckpt("guard", "--against", "git:HEAD", "--fix").code == 0
    assert (folder / "migrations" / "conv-to-embed.toml").exists()
    assert ckpt("guard", "--against", "git:HEAD").code == 0
    guarded(folder, '{definition = "new.py:New", formerly = []}')
    ran = ckpt("guard", "--against", "git:HEAD")
    assert (ran.code, "is new since HEAD" in ran.out) == (0, True)


def move(net: Path, git: Git, place: str, name: str) -> None:
    """Give the class other layers, another name and another file than those of the commit."""
    folder = net.parents[1]
    commit(git)
    edit(net, "conv", "embed")
    edit(net, "class Net", f"class {name}")
    net.rename(folder / place)
    guarded(folder, f'"{place}:{name}"')


@pytest.mark.long
def test_settings_say_what_a_class_was_called(
    ckpt: Run, net: Path, git: Git, folder: Path, register: Callable[..., None]
) -> None:
    guarded(folder, '"models/net.py:Net", "models/net.py:Other"')
    assert ckpt("guard", "--snapshot", "models/net.py:Net").code == 0
    commit(git)
    edit(net, "class Net", "class A")
    edit(net, "class Other(nn.Module):\n    pass", "class B(nn.Module):\n    pass")
    guarded(folder, '"models/net.py:A", "models/net.py:B"')
    ran = ckpt("guard", "--against", "git:HEAD")
    assert ran.code == 3
    assert "new, and may be models/net.py:Net or models/net.py:Other, which are gone" in ran.err
    guarded(folder, '{definition = "models/net.py:A", formerly = ["models/net.py:Net"]}')
    ran = ckpt("guard", "--against", "git:HEAD")
    assert (ran.code, ran.err) == (0, "")
    assert "checkpoints of models/net.py:Net at HEAD  fits" in ran.out
    ran = ckpt("guard")  # by the snapshot of its former name
    assert (ran.code, ran.err) == (0, "")
    assert "schemas/Net.json  fits" in ran.out


@pytest.mark.long
def test_migration_that_is_gone_or_changed_is_missed(
    ckpt: Run, net: Path, git: Git, folder: Path
) -> None:
    commit(git)
    edit(net, "conv", "embed")
    assert ckpt("guard", "--against", "git:HEAD", "--fix").code == 0
    commit(git)
    path = folder / "models" / "migrations" / "conv-to-embed.toml"
    text = path.read_text()
    for change, says in (
        (None, "back:  git checkout HEAD -- models/migrations/conv-to-embed.toml\n"),
        (("'net.py:Net'\nrules", "'old.py:Net'\nrules"), "add 'net.py:Net' to its definition"),
        (("'conv->embed' }", "'conv->stem' }"), "changed, and no longer leads to the class"),
    ):
        path.unlink(missing_ok=True)
        if change:
            path.write_text(text.replace(*change))
        ran = ckpt("guard", "--against", "git:HEAD")
        assert (ran.code, ran.err) == (1, "")
        assert "no longer loads checkpoints of HEAD, before conv-to-embed\n" in ran.out
        assert says in ran.out
    path.write_text(text.replace("message = 'conv->embed'", "message = 'other words'"))
    assert ckpt("guard", "--against", "git:HEAD").code == 0


@pytest.mark.long
def test_ambiguous_change_is_a_question_and_fix_writes_nothing(
    ckpt: Run, net: Path, git: Git, folder: Path
) -> None:
    net.write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.b = nn.LayerNorm(4), nn.LayerNorm(4)\n"
    )
    commit(git)
    edit(net, "self.a, self.b", "self.x, self.y")
    ran = ckpt("guard", "--against", "git:HEAD", "--fix")
    assert (ran.code, ran.err) == (1, "")
    assert "ambiguous" in ran.out
    assert not (folder / "models" / "migrations").exists()
    command = ran.out.splitlines()[-1].removeprefix("To keep old checkpoints loading:  ckpt ")
    assert command.startswith("migrate new models/net.py:Net --from git:HEAD --")
    assert ckpt(*split(command)).code == 0
    assert ckpt("guard", "--against", "git:HEAD").code == 0


@pytest.mark.long
def test_change_of_meaning_under_the_same_keys_is_told_by_the_number(
    ckpt: Run, net: Path, folder: Path
) -> None:
    edit(net, "    def __init__(self, depth", "    ckpt_schema = 1\n    def __init__(self, depth")
    assert ckpt("guard", "--snapshot").code == 0
    edit(net, "ckpt_schema = 1", "ckpt_schema = 2")
    ran = ckpt("guard")
    assert ran.code == 1
    assert "its keys fit, but its ckpt_schema is 1, expected 2" in ran.out


@pytest.mark.long
def test_removed_tensor_breaks_and_no_migration_is_offered_that_loses_it(
    ckpt: Run, net: Path, git: Git
) -> None:
    commit(git)
    edit(net, "        self.conv2 = nn.Conv2d(8, 16, 3)\n", "        self.head = nn.Linear(7, 7)\n")
    ran = ckpt("guard", "--against", "git:HEAD", "--fix")
    assert ran.code == 1
    assert "  missing     head.{weight,bias}   2 keys\n" in ran.out
    assert "  unexpected  conv2.{weight,bias}   2 keys\n" in ran.out


@pytest.mark.long
@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("class Net:\n", "models/net.py:Net: raises"),
        ("import no_such_package\n", "models/net.py:Net: raises ModuleNotFoundError"),
        ("raise ValueError('x')\n", "models/net.py:Net: raises ValueError: x"),
        ("class Net2: pass\n", "models/net.py: has no class Net"),
        (None, "models/net.py: no such file"),
    ],
)
def test_class_that_cannot_be_built_is_one_line(
    ckpt: Run, net: Path, code: str | None, says: str
) -> None:
    assert ckpt("guard", "--snapshot").code == 0
    if code is None:
        net.unlink()
    else:
        net.write_text(code)
    ran = ckpt("guard")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith(f"error: {says}")
    assert ran.err.count("error:") == 1
    assert "Traceback" not in ran.err


@pytest.mark.long
def test_time_limit_is_a_setting_and_an_option(ckpt: Run, net: Path, folder: Path) -> None:
    net.write_text("while True: pass\n")
    ran = ckpt("guard", "--snapshot", "--timeout", "0.5")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("error: models/net.py:Net: takes more than 0.5 s to build\n")
    guarded(folder, '"models/net.py:Net"', "timeout = 0.25")
    assert "takes more than 0.25 s" in ckpt("guard", "--snapshot").err
    guarded(folder, '{definition = "models/net.py:Net", timeout = 0.75}', "timeout = 0.25")
    assert "takes more than 0.75 s" in ckpt("guard", "--snapshot").err


def annotation(ran: Ran) -> tuple[dict[str, str], str]:
    """The properties and the text of an annotation, read as GitHub's runner reads it."""
    (line,) = [line for line in ran.out.splitlines() if line.startswith("::")]
    found = re.fullmatch(r"::error (.*?)::(.*)", line)
    assert found is not None

    def read(text: str) -> str:
        return re.sub("%(0D|0A|3A|2C|25)", lambda it: chr(int(it[1], 16)), text)

    pairs = (pair.split("=", 1) for pair in found[1].split(","))
    return {name: read(value) for name, value in pairs}, read(found[2])


@pytest.mark.long
def test_annotation_is_on_the_line_of_the_class(ckpt: Run, net: Path, git: Git) -> None:
    commit(git)
    edit(net, "conv", "embed")
    ran = ckpt("guard", "--against", "git:HEAD", "--format", "github")
    assert ran.code == 1
    properties, text = annotation(ran)
    assert properties == {
        "file": "models/net.py",
        "line": "8",
        "title": "models/net.py:Net no longer loads checkpoints of HEAD",
    }
    assert "conv1.weight  ->  embed1.weight\n" in text
    net.write_text("class Net(:\n")
    ran = ckpt("guard", "--against", "git:HEAD", "--format", "github")
    properties, text = annotation(ran)
    assert (ran.code, properties["line"]) == (3, "1")
    assert "SyntaxError" in text


@pytest.mark.long
def test_annotation_cannot_be_left_by_what_code_says(ckpt: Run, net: Path, git: Git) -> None:
    commit(git)
    net.write_text("raise ValueError('100%\\n::error::x\\r::set-output y')\n")
    ran = ckpt("guard", "--against", "git:HEAD", "--format", "github")
    assert len([line for line in ran.out.splitlines() if line.startswith("::")]) == 1
    assert "100% ::error::x ::set-output y" in annotation(ran)[1]


@pytest.mark.long
def test_comment_shows_what_became_of_the_keys(ckpt: Run, net: Path, git: Git) -> None:
    commit(git)
    edit(net, "conv", "embed")
    ran = ckpt("guard", "--against", "git:HEAD", "--format", "markdown")
    assert ran.code == 1
    assert ran.out.startswith("### Old checkpoints no longer load: models/net.py:Net\n")
    assert "| conv1.weight  -\\>  embed1.weight" in ran.out
    assert (
        "    ckpt guard --fix --against git:HEAD\n\n"
        "it writes models/migrations/conv-to-embed.toml\n"
    ) in ran.out


@pytest.mark.long
def test_json_has_the_verdicts(ckpt: Run, net: Path, git: Git) -> None:
    commit(git)
    edit(net, "conv", "embed")
    data = ckpt("guard", "--against", "git:HEAD", "--json").data
    assert (data["holds"], data["against"]) == (False, "HEAD")
    (found,) = data["classes"]
    assert (found["definition"], found["line"]) == ("models/net.py:Net", 8)
    (verdict,) = found["verdicts"]
    assert verdict["unexpected"][0] == "conv1.weight"
    assert verdict["rules"] == [{"rename": "conv->embed"}]
    assert verdict["migration"] == "conv-to-embed"
    assert ckpt("guard", "--against", "git:HEAD", "--format", "json").data == data


@pytest.mark.long
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("guard = 'models/net.py:Net'", 'tool.ckpt.guard: expected a list, found "models'),
        ("guard = [1]", "tool.ckpt.guard[0]: expected a string, found 1"),
        ("guard = ['models/net.py']", "tool.ckpt.guard[0]: expected a definition like"),
        ("guard = [{models = []}]", "tool.ckpt.guard[0].definition: missing"),
        (
            "guard = [{definition = 'a:B', versions = 'some'}]",
            "tool.ckpt.guard[0].versions: expected 'all', 'latest' or 'aliases', found \"some\"",
        ),
        (
            "guard = [{definition = 'a:B', models = 'net'}]",
            'tool.ckpt.guard[0].models: expected a list, found "net"',
        ),
        ("guard = [{definition = 'a:B', model = []}]", "tool.ckpt.guard[0]: unknown field 'model'"),
        ("guard = ['a:B']\ntimeout = 0", "tool.ckpt.timeout: expected a positive number"),
        ("guard = ['a:B'", "Unclosed array"),
    ],
)
def test_invalid_settings_are_named_by_their_field(
    ckpt: Run, folder: Path, settings: str, says: str
) -> None:
    (folder / "pyproject.toml").write_text(f"[tool.ckpt]\n{settings}\n")
    ran = ckpt("guard")
    assert (ran.code, ran.out) == (3, "")
    assert says in ran.err.splitlines()[0]
    assert ran.err.startswith(f"error: {folder / 'pyproject.toml'}: ")


@pytest.mark.long
def test_usage_errors(ckpt: Run, net: Path, folder: Path) -> None:
    assert ckpt("guard", "--snapshot", "--against", "git:HEAD").code == 2
    assert ckpt("guard", "--snapshot", "--fix").code == 2
    assert ckpt("guard", "--timeout", "0").code == 2
    (folder / "pyproject.toml").unlink()
    ran = ckpt("guard")
    assert (ran.code, ran.err.splitlines()[0]) == (2, "error: no definition is named")
    ran = ckpt("guard", "models/net.py:Net", "--against", "git:HEAD")
    assert ran.code == 2
    assert "not a git repository" in ran.err
    ran = ckpt("guard", "models/net.py:Net")
    assert (ran.code, "and there is no registry" in ran.err) == (2, True)


@pytest.mark.long
def test_class_is_found_from_a_folder_below_the_project(
    ckpt: Run, net: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ckpt("guard", "--snapshot").code == 0
    monkeypatch.chdir(folder / "models")
    assert ckpt("guard").code == 0
    assert ckpt("guard", "net.py:Net").code == 0


MIGRATION = """message = 'x'
definition = 'net.py:Net'
rules = [{ rename = 'conv->embed' }]
[before]
keys = ['conv1.weight  8 1 3 3']
[after]
keys = ['embed1.weight  8 1 3 3']
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rules = [}", "(at line 1, column 10)"),
        (MIGRATION + "x = 1\n", "after: expected keys"),
        (MIGRATION.replace("rename", "run"), "run"),
        (MIGRATION.replace("conv->embed", "(->x"), "rule 1"),
        (MIGRATION.replace("8 1 3 3']\n[after]", "8 -1']\n[after]"), "is not a key and its shape"),
        ("\0", "broken.toml"),
    ],
    ids=["toml", "field", "verb", "regex", "shape", "nul"],
)
def test_fault_25_invalid_migration_is_refused_before_any_code_runs(
    ckpt: Run, net: Path, folder: Path, text: str, says: str
) -> None:
    assert ckpt("guard", "--snapshot").code == 0
    net.write_text("open('canary', 'w')\n" + net.read_text())
    path = folder / "models" / "migrations" / "broken.toml"
    path.write_text(text)
    ran = ckpt("guard")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith(f"error: {path}")
    assert says in ran.err
    assert not (folder / "canary").exists()


@pytest.mark.long
def test_fault_25_rule_that_takes_for_ever_is_stopped(ckpt: Run, net: Path, folder: Path) -> None:
    edit(net, "self.conv1", f"self.{'a' * 60}")
    assert ckpt("guard", "--snapshot").code == 0
    edit(net, f"self.{'a' * 60}", "self.conv1")
    slow = MIGRATION.replace("conv->embed", "(a|aa)+$->x").replace(
        "'conv1.weight  8 1 3 3'", "'" + "', '".join(old_keys(folder)) + "'"
    )
    (folder / "models" / "migrations" / "slow.toml").write_text(slow)
    ran = ckpt("guard")
    assert ran.code == 1
    assert "no longer loads snapshot" in ran.out


def old_keys(folder: Path) -> list[str]:
    document = json.loads((folder / "models/migrations/schemas/Net.json").read_text())
    return [
        f"{key}  {' '.join(map(str, shape))}"
        for key, _, shape in document["keys"]
        if not key.startswith("blocks")
    ] + ["blocks.{i}.weight  4 4", "blocks.{i}.bias  4"]


@pytest.mark.long
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-20],
        lambda text: text.replace("[8]", "[9]"),
        lambda text: text.replace('"snapshot": 1', '"snapshot": 2'),
        lambda text: text.replace('"float32"', "1", 1),
        lambda text: "<<<<<<< HEAD\n" + text,
        lambda _: "[]",
    ],
    ids=["truncated", "edited", "newer", "type", "conflict", "list"],
)
def test_damaged_snapshot_is_refused(
    ckpt: Run, net: Path, folder: Path, change: Callable[[str], str]
) -> None:
    assert ckpt("guard", "--snapshot").code == 0
    path = folder / "models" / "migrations" / "schemas" / "Net.json"
    path.write_text(change(path.read_text()))
    ran = ckpt("guard")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith(f"error: {path}: ")


@pytest.mark.long
def test_two_lines_are_a_test_by_hand(ckpt: Run, net: Path, git: Git) -> None:
    commit(git)
    assert package.guard(against="git:HEAD").holds
    edit(net, "conv", "embed")
    assert not package.guard(against="git:HEAD").holds

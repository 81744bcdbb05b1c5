"""torch is a leaf: what does not need it never imports it, nor numpy."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.support import Run, weights
from tests.effort import long_but
from tests.signing.keys import write_pair

PROGRAM = """
import sys
from ckpt.cli import main
try:
    main(sys.argv[1:])
except SystemExit as done:
    heavy = {"torch", "numpy", "safetensors", "sklearn", "scipy", "matplotlib"} & set(sys.modules)
    sys.exit(f"imported {sorted(heavy)}" if heavy else done.code)
"""


COMMANDS = [
    ("--help",),
    ("rename", "--help"),
    ("train", "--help"),
    ("plot", "--help"),
    ("ls",),
    ("alias", "prod", "v1"),
    ("tag", "v1"),
    ("note", "v1", "-m", "x"),
    ("metric", "v1", "loss=1"),
    ("alias", "--log"),
    ("copy", "v1", ".", "--name", "other"),
    ("pin", "v1"),
    ("sign", "v1", "--key", "private.pem"),
    ("verify", "--signed", "--key", "public.pem", "v2"),
    ("show", "v1"),
    ("show", "old.pt"),
    ("log", "v1"),
    ("log", "v1", "--", "conv1"),
    ("blame", "conv1", "v1"),
    ("diff", "v1", "v2"),
    ("diff", "old.pt", "v2"),
    ("diff", "old.pt", "old.pt", "--values"),
    ("diff", "v1", "v2", "--tolerance", "0"),
    ("diff", "old.pt", "v2", "--map"),
    ("rename", "old.pt", "--to", "v2"),
    ("rename", "v1", "--rule", "fc=head"),
    ("rename", "old.pt", "--rule", "conv=embed"),
    ("export", "v1", "-o", "x.pt"),
    ("export", "v2", "-o", "x.safetensors"),
    ("register", "old.pt"),
    ("import", "folder:.", "--name", "other"),
    ("verify",),
    ("verify", "--repair", "old.pt"),
    ("gc",),
    ("gc", "--yes"),
    ("guard", "--snapshot", "net.py:Net"),
    ("guard", "net.py:Net"),
    ("du",),
    ("rm", "v1", "--yes"),
    ("undo", "--list"),
    ("undo",),
    ("restore", "v1"),
    ("registry", "init"),
    ("fsck",),
    ("git-driver", "--help"),
    ("git-driver", "merge", "registry.json", "registry.json", "registry.json"),
]
QUICK = [
    ("show", "old.pt"),
    ("diff", "v1", "v2"),
    ("rename", "old.pt", "--to", "v2"),
    ("gc", "--yes"),
]


@pytest.mark.parametrize("words", long_but(QUICK, COMMANDS), ids=" ".join)
def test_fault_45_command_imports_no_torch_and_no_numpy(
    ckpt: Run, folder: Path, words: tuple[str, ...]
) -> None:
    torch.save(weights(), folder / "old.pt")
    (folder / "net.py").write_text("from torch import nn\nclass Net(nn.Flatten): pass\n")
    if words[0] == "guard":
        assert ckpt("guard", "--snapshot", "net.py:Net").code == 0
    assert ckpt("register", "old.pt", "--name", "mnist-cnn").code == 0
    assert ckpt("rename", "v1", "--rule", "conv=embed").code == 0
    if "--key" in words:
        write_pair(folder)
        assert ckpt("sign", "v2", "--key", "private.pem").code == 0
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], cwd=folder, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.partition("\n")[0]) == (0, "")


LOADED = """
import sys
from ckpt.cli import main
try:
    main(sys.argv[1:])
except SystemExit as done:
    assert not done.code
    print("\\n".join(sys.modules), file=sys.stderr)
"""
# What the commands below do without: it is for versions, classes, migrations, proofs and URLs.
NOT_FOR_FILES = (
    *("ckpt.registry", "ckpt.definitions", "ckpt.loading", "ckpt.migrate", "ckpt.infer"),
    *("ckpt.prove", "ckpt.remote", "ckpt.train", "ckpt.signing", "ckpt.ops.register"),
    *("ckpt.ops.log", "ckpt.formats.distributed.metadata", "ckpt.show.register"),
)
# How a ref is told from the name of a version, and what an option of `ckpt rename` says.
SMALL = {"ckpt.registry", "ckpt.registry.registry", "ckpt.registry.places"}
OPTION = {"ckpt.prove", "ckpt.prove.specs"}


@pytest.mark.parametrize(
    ("words", "more", "small"),
    [
        (("--version",), ("ckpt.ops", "ckpt.formats", "ckpt.cli.options", "json"), set()),
        (("show", "old.pt"), ("ckpt.rules", "ckpt.writing", "ckpt.show.ls"), SMALL),
        (
            ("diff", "old.pt", "old.safetensors"),
            ("ckpt.rules.document", "ckpt.show.pages", "ckpt.show.diff.fit"),
            SMALL,
        ),
        (
            ("rename", "old.pt", "--rule", "conv=embed", "-o", "new.pt"),
            ("ckpt.ops.diff", "ckpt.compare.pairs", "ckpt.ops.rename.plan_fit", "ckpt.show.diff"),
            SMALL | OPTION,
        ),
        (
            ("rename", "old.safetensors", "--rule", "conv=embed", "-o", "new.safetensors"),
            ("ckpt.ops.diff", "ckpt.ops.rename.to_version", "ckpt.formats.torch_zip"),
            SMALL | OPTION,
        ),
    ],
    ids=["version", "show", "diff", "rename", "rename-safetensors"],
)
def test_command_on_a_file_imports_nothing_that_only_versions_and_classes_need(
    folder: Path, words: tuple[str, ...], more: tuple[str, ...], small: set[str]
) -> None:
    torch.save(weights(), folder / "old.pt")
    save_file(weights(), folder / "old.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *words], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    loaded = done.stderr.split("\n")
    assert "ckpt.show.look.terminal" in loaded
    unneeded = (*NOT_FOR_FILES, *more)
    assert all(map(find_spec, unneeded))  # a module that moved is still meant
    found = {it for it in loaded if any(f"{it}.".startswith(f"{name}.") for name in unneeded)}
    assert found <= small


def test_fault_45_rebuilding_the_index_imports_no_torch(ckpt: Run, folder: Path) -> None:
    torch.save(weights(), folder / "old.pt")
    assert ckpt("register", "old.pt").code == 0
    (folder / "registry.json").unlink()
    words = [sys.executable, "-c", PROGRAM, "fsck", "--rebuild-index", "--yes"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_package_has_each_commands_function_under_its_name() -> None:
    import ckpt
    from ckpt.cli.commands import COMMANDS

    no_functions = {"git-driver", "registry", "remote", "rules", "import", "completion", "help"}
    commands = COMMANDS.keys() - no_functions
    homes = {name: getattr(ckpt, name).__module__ for name in commands}
    assert homes == {name: f"ckpt.ops.{name}" for name in commands}
    assert commands < set(ckpt.__all__)
    assert all(getattr(ckpt, name) for name in ckpt.__all__)


def test_type_checkers_see_the_names_of_the_package() -> None:
    import ast

    import ckpt

    tree = ast.parse(Path(ckpt.__file__).read_text(encoding="utf-8"))
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = [alias.name for node in guarded.body for alias in node.names]
    assert sorted(seen) == sorted(ckpt.__all__)


def test_functions_stay_when_sub_packages_of_their_names_are_imported() -> None:
    program = (
        "import ckpt, ckpt.show, ckpt.train, inspect\n"
        "from ckpt.show.look import words\n"
        "from ckpt.train.recipes import recipe\n"
        "assert inspect.isfunction(ckpt.show) and inspect.isfunction(ckpt.train)\n"
        "assert words.size and recipe.Recipe"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_import_of_the_package_imports_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "click", "regex", "isal"}
    program = f"import sys, ckpt; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0

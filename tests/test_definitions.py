"""Definitions: found, imported and asked for their entries."""

import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from ckpt.definitions import find_definition, importable_ref
from ckpt.definitions.importing import DefinitionError
from ckpt.errors import RefError, UsageError
from ckpt.refs import DefinitionRef, parse_ref
from ckpt.tensors import TensorEntry

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2).to(torch.bfloat16)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("cache", torch.zeros(4), persistent=False)

def small():
    return nn.Linear(1, 1, bias=False)
"""


def write(folder: Path, text: str, name: str = "net.py") -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return str(folder / name)


def test_entries_are_the_state_dict_in_order_with_persistent_buffers(tmp_path):
    definition = find_definition(write(tmp_path, NET) + ":Net")
    assert definition.entries() == (
        TensorEntry("steps", "int64", ()),
        TensorEntry("fc.weight", "bfloat16", (2, 3)),
        TensorEntry("fc.bias", "bfloat16", (2,)),
    )
    assert [entry.key for entry in definition.entries()] == list(definition.build().state_dict())


def test_entries_use_no_memory_for_the_tensors(tmp_path):
    huge = "from torch import nn\ndef huge(): return nn.Linear(1 << 20, 1 << 20)\n"
    weight, _ = find_definition(write(tmp_path, huge) + ":huge").entries()
    assert weight.nbytes == 4 << 40


def test_entries_of_a_constructor_that_needs_values_are_those_of_a_real_module(tmp_path):
    text = (
        "import torch\nclass Net(torch.nn.Linear):\n"
        "    def __init__(self): super().__init__(int(torch.tensor(3).item()), 1)\n"
    )
    assert find_definition(write(tmp_path, text) + ":Net").entries()[0].shape == (1, 3)


def test_entries_leave_the_global_generator_alone(tmp_path):
    import torch

    definition = find_definition(write(tmp_path, NET) + ":small")
    before = torch.get_rng_state()
    definition.entries()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("ref", ["ckpt.models.mnist_cnn:Net", "ckpt.models.mnist_embed:Net"])
def test_packaged_definitions_are_found(ref):
    definition = find_definition(ref)
    assert sum(entry.numel for entry in definition.entries()) == 609_354
    assert "class Net" in definition.source()


@pytest.mark.long
def test_a_function_of_torchvision_is_a_definition_beside_a_cpu_only_torch():
    code = (
        "from ckpt.definitions import find_definition as f;"
        "d = f('torchvision.models:resnet18');"
        "print(len(d.entries()), d.path.name, 'def resnet18' in d.source())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["122", "resnet.py", "True"]


def test_importing_the_module_needs_no_torch():
    code = "import sys, ckpt.definitions; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_source_is_the_text_of_the_defining_file(tmp_path):
    assert find_definition(write(tmp_path, NET) + ":Net").source() == NET


def test_siblings_are_importable_while_a_file_loads_and_forgotten_after(tmp_path):
    before = list(sys.path)
    for number in (1, 2):
        folder = tmp_path / str(number)
        write(folder, f"WIDTH = {number}\n", "ckpt_test_layers.py")
        ref = write(
            folder,
            "from torch import nn\nfrom ckpt_test_layers import WIDTH\n"
            "def net(): return nn.Linear(WIDTH, 1)\n",
        )
        assert find_definition(ref + ":net").entries()[0].shape == (1, number)
    assert sys.path == before
    assert "ckpt_test_layers" not in sys.modules


def test_siblings_imported_by_a_constructor_are_found_too(tmp_path):
    write(tmp_path, "WIDTH = 5\n", "ckpt_test_late.py")
    text = (
        "from torch import nn\ndef net():\n    from ckpt_test_late import WIDTH\n"
        "    return nn.Linear(WIDTH, 1)\n"
    )
    assert find_definition(write(tmp_path, text) + ":net").build().in_features == 5


def test_a_file_named_like_a_library_hides_nothing(tmp_path):
    find_definition(write(tmp_path, NET, "json.py") + ":Net")
    import json

    assert json.loads("1") == 1


def test_what_a_definition_prints_goes_to_stderr(tmp_path, capsys):
    find_definition(write(tmp_path, "print('hello')\n" + NET) + ":Net")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")


REF_ERRORS = {
    "no class part": ("{net}", "Python code, and no class is named"),
    "no such file": ("{folder}/nett.py:Net", "no such file"),
    "no such class": ("{net}:Nett", "has no class Nett"),
    "not callable": ("{net}:__name__", "has no class __name__"),
    "no such module": ("no_such_package_here.models:Net", "no module no_such_package_here"),
    "no such submodule": ("ckpt.models.nowhere:Net", "no module ckpt.models.nowhere"),
    "bad module name": ("a b.c:Net", "not a module name"),
}


@pytest.mark.parametrize(("ref", "message"), REF_ERRORS.values(), ids=REF_ERRORS)
def test_a_ref_that_names_nothing_is_a_usage_error(tmp_path, ref, message):
    net = write(tmp_path, NET)
    with pytest.raises(RefError, match=message) as caught:
        find_definition(ref.format(net=net, folder=tmp_path))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_did_you_mean_names_classes_and_files(tmp_path):
    net = write(tmp_path, NET)
    with pytest.raises(RefError) as caught:
        find_definition(f"{net}:Nett")
    assert caught.value.hint == f"did you mean {net}:Net"
    with pytest.raises(RefError) as caught:
        find_definition(f"{tmp_path}/nett.py:Net")
    assert caught.value.hint == f"did you mean {net}"


SIZED = """
from torch import nn
def Net(width, bias=True):
    return nn.Linear(width, 1, bias=bias)
"""


def test_arguments_are_part_of_a_ref(tmp_path):
    ref = write(tmp_path, SIZED) + ":Net"
    assert isinstance(parse_ref(f"{ref}(width=3)"), DefinitionRef)
    assert [entry.shape for entry in find_definition(f"{ref}(width=3)").entries()] == [(1, 3), (1,)]
    found = find_definition(f"{ref}(width=3, bias=False)", {"width": 4}).entries()
    assert [entry.shape for entry in found] == [(1, 4)]


@pytest.mark.parametrize(
    "written", ["(3)", "(width=open('x'))", "(width=3", "(**{'width': 3})", "()()"]
)
def test_arguments_are_names_and_literals(tmp_path, written):
    ref = write(tmp_path, SIZED) + f":Net{written}"
    with pytest.raises(RefError, match="its arguments are not NAME=VALUE"):
        find_definition(ref)


OWN_ERRORS = {
    "syntax": ("def (:\n", "raises SyntaxError"),
    "import": ("import no_such_package_here\n", "raises ModuleNotFoundError"),
    "relative import": ("from .layers import Block\n", "raises ImportError"),
    "exit": ("raise SystemExit(0)\n", "raises SystemExit"),
    "constructor": ("def Net(): raise ValueError('one\\ntwo')\n", "raises ValueError: one two"),
    "arguments": ("def Net(width): ...\n", "raises TypeError"),
    "no module": ("def Net(): return 1\n", "returns int, expected torch.nn.Module"),
    "lazy": (
        "import torch\ndef Net(): return torch.nn.LazyLinear(2)\n",
        "raises RuntimeError",
    ),
}


@pytest.mark.parametrize(("text", "message"), OWN_ERRORS.values(), ids=OWN_ERRORS)
def test_what_a_definition_raises_is_one_line(tmp_path, text, message):
    ref = write(tmp_path, text) + ":Net"
    with pytest.raises(DefinitionError, match=message) as caught:
        find_definition(ref).entries()
    assert caught.value.exit_code == 3
    assert str(caught.value).startswith(f"{ref}: ")
    assert "\n" not in str(caught.value)


def test_a_class_and_a_function_have_a_ref_that_finds_them() -> None:
    for ref in ("ckpt.models.mnist_cnn:Net", "torchvision.models.resnet:resnet18"):
        factory = find_definition(ref).factory
        assert importable_ref(factory) == ref


def test_what_no_name_finds_has_no_ref() -> None:
    class Local(nn.Linear):
        pass

    cases = {
        "Local cannot be imported by its name": Local,
        "<lambda> cannot be imported by its name": lambda: nn.Linear(1, 1),
        "Linear is a module, expected its class": nn.Linear(1, 1),
        "int: expected a torch.nn.Module, or a class of them": int,
    }
    for message, factory in cases.items():
        with pytest.raises(UsageError, match=f"^{message}"):
            importable_ref(factory)

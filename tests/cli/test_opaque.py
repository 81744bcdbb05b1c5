"""Objects of unknown classes beside the tensors: shown, kept, dropped, and never run."""

import os
import subprocess
import sys
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch
from torch.serialization import get_unsafe_globals_in_checkpoint

from ckpt.formats.opaque import safe_globals, unopened
from tests.cli.support import Run
from tests.effort import by_effort
from tests.formats import everyday, hostile
from tests.formats.support import expected, loaded, opened, saved, torch_file

ROOT = Path(__file__).parents[2]
NAMES = tuple(everyday.objects())
# In these nothing is foreign to torch, or nothing that runs code.
PLAIN = {
    *("counter", "set", "complex", "bytes", "scheduler_state", "lambda_state", "torch_device"),
    *("torch_dtype", "torch_size", "generator"),
}
INERT = {
    *("np_scalar", "np_array", "np_rng", "namespace", "simplenamespace", "posixpath"),
    *("windowspath", "datetime_utc", "timedelta", "defaultdict", "defaultdict_float", "deque"),
    *("frozenset", "slice", "range", "string_dtype", "np_str", "np_bool", "np_object_array"),
}


def write(name: str, **options: Any) -> bytes:
    data = saved(everyday.checkpoint(everyday.objects()[name]), **options)
    Path("run.pt").write_bytes(data)
    return data


def legacy(value: object) -> bytes:
    return saved(value, _use_new_zipfile_serialization=False)


def weights_only(data: bytes) -> Any:
    """What torch gives; an exception if it refuses the file."""
    try:
        return loaded(data)
    except Exception as error:  # noqa: BLE001 - torch refuses by errors of any kind
        return error


@pytest.mark.parametrize("name", NAMES)
def test_everyday_file_is_shown_kept_and_dropped(ckpt: Run, name: str) -> None:
    data = write(name)
    harmful = name not in PLAIN | INERT
    shown = ckpt("show", "run.pt::state_dict", "--json")
    assert shown.code == 0
    assert [entry["key"] for entry in shown.data["tensors"]] == list(
        everyday.network().state_dict()
    )
    foreign = shown.data["foreign_globals"]
    assert bool(foreign) == (name not in PLAIN)
    assert any(one["runs_code"] for one in foreign) == harmful
    audited = ckpt("audit", "run.pt")
    assert audited.code == (3 if harmful else 0)
    assert ("runs code when unpickled" in audited.out) == harmful

    rename = ["rename", "run.pt::state_dict", "--rule", r"0\.bias->0.shift"]
    asked = ckpt(*rename)
    assert asked.code == (3 if harmful else 0)
    if harmful:
        assert "runs code when unpickled" in asked.err
        assert not Path("run.renamed.pt").exists()
    assert ckpt(*rename, "--keep-opaque", "-o", "kept.pt").code == 0
    assert ckpt("rename", "kept.pt::state_dict", "--rule", r"0\.shift->0.bias", "--keep-opaque",
                "-o", "back.pt").code == 0  # fmt: skip
    assert Path("back.pt").read_bytes() == data

    dropped = ckpt(*rename, "--drop-opaque", "-o", "plain.pt")
    assert dropped.code == 0
    gone = foreign and name not in ("defaultdict", "defaultdict_float")  # become plain dicts
    assert ("not written: hyper_parameters.x" in dropped.err) == bool(gone)
    value = loaded(Path("plain.pt").read_bytes())
    keys = {"0.bias": "0.shift"}
    state = {keys.get(key, key): one for key, one in everyday.network().state_dict().items()}
    assert expected(value["state_dict"]) == expected(state)
    assert value["state_dict"]._metadata == everyday.network().state_dict()._metadata
    assert value["epoch"] == 3
    assert value["hyper_parameters"]["y"][1] == 1


@pytest.mark.parametrize("name", NAMES)
def test_verdict_is_torchs_own(folder: Path, name: str) -> None:
    for data in (write(name), legacy(everyday.checkpoint(everyday.objects()[name]))):
        checkpoint = opened(data, "state_dict")
        refused = isinstance(weights_only(data), Exception)
        assert refused == bool(unopened(checkpoint))
    theirs = set(get_unsafe_globals_in_checkpoint("run.pt"))
    assert set(unopened(opened(write(name), "state_dict"))) == theirs


@pytest.mark.parametrize("name", ["omegaconf", "config_object", "enum", "namespace", "np_scalar",
                                  "np_array", "many"])  # fmt: skip
@pytest.mark.long
def test_line_for_safe_globals_makes_torch_open_the_file(folder: Path, name: str) -> None:
    data = write(name)
    line = safe_globals(unopened(opened(data, "state_dict")))
    assert line is not None
    script = "import collections, datetime, pathlib, types, argparse, numpy, sys, torch\n"
    script += "import tests.formats.everyday as e; e.omegaconf()\n"
    script += "import omegaconf.dictconfig, omegaconf.base, tests\n"
    script += f"{line}\ntorch.load(sys.argv[1], weights_only=True)\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, "run.pt"],
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("value", [None, b"bytes", {1}], ids=str)
def test_remark_says_whether_torch_will_refuse_the_file(
    ckpt: Run, protocol: int, value: object
) -> None:
    Path("a.pt").write_bytes(saved(everyday.checkpoint(value), pickle_protocol=protocol))
    ran = ckpt("rename", "a.pt", "--rule", "0->zero", "-o", "b.pt")
    assert ran.code == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused = isinstance(weights_only(Path("b.pt").read_bytes()), Exception)
    assert refused == ("torch will need weights_only=False for this file" in ran.err)
    if refused:
        assert "to get one that opens:  ckpt export b.pt::state_dict -o NEW.pt" in ran.err
        assert ckpt("export", "b.pt::state_dict", "-o", "NEW.pt").code == 0
        loaded(Path("NEW.pt").read_bytes())


def test_version_keeps_or_drops_objects(ckpt: Run) -> None:
    data = write("omegaconf")
    refused = ckpt("register", "run.pt", "--name", "m")
    assert refused.code == 3
    assert "--keep-opaque" in refused.err
    assert "--drop-opaque" in refused.err
    assert ckpt("register", "run.pt", "--name", "m", "--keep-opaque").code == 0
    dropped = ckpt("register", "run.pt", "--name", "m", "--drop-opaque")
    assert dropped.code == 0
    assert "hyper_parameters.x (omegaconf.dictconfig.DictConfig)" in dropped.err
    assert "register run.pt --keep-opaque" in ckpt("ls").out
    assert "omegaconf.dictconfig.DictConfig  " in ckpt("show", "m:v1").out
    assert "runs code when unpickled" in ckpt("diff", "m:v1", "m:v2").out
    assert [ckpt("audit", ref).code for ref in ("m:v1", "m:v2")] == [3, 0]
    assert ckpt("export", "m:v1", "-o", "same.pt").code == 3
    assert not Path("same.pt").exists()
    assert ckpt("export", "m:v1", "-o", "same.pt", "--keep-opaque").code == 0
    assert Path("same.pt").read_bytes() == data
    assert ckpt("export", "m:v1", "-o", "plain.pt", "--drop-opaque").code == 0
    assert ckpt("export", "m:v2", "-o", "two.pt").code == 0
    assert Path("plain.pt").read_bytes() == Path("two.pt").read_bytes()
    loaded(Path("plain.pt").read_bytes())
    assert ckpt("rename", "m:v1", "--rule", "0->zero").code == 3
    assert ckpt("rename", "m:v1", "--rule", "0->zero", "--drop-opaque").code == 2
    assert ckpt("rename", "m:v1", "--rule", "0->zero", "--keep-opaque").code == 0
    assert ckpt("audit", "m:v3").code == 3
    assert ckpt("verify").code == 0


def foreign_tensor() -> Any:
    value = everyday.Config()
    value.tensor = torch.ones(2)
    return value


def test_module_becomes_a_plain_file(ckpt: Run) -> None:
    model = everyday.network()
    for data in (saved({"model": model, "epoch": 3}), legacy({"model": model, "epoch": 3})):
        Path("whole.pt").write_bytes(data)
        assert ckpt("audit", "whole.pt").code == 3
        for ref, key in (("whole.pt", "model"), ("whole.pt::model", None)):
            assert ckpt("export", ref, "-o", "new.pt", "--force").code == 0
            read = loaded(Path("new.pt").read_bytes())
            assert expected(read[key] if key else read) == expected(model.state_dict())
        rename = ("rename", "whole.pt", "--rule", "0->zero", "-o", "new.pt", "--force")
        assert ckpt(*rename, "--keep-opaque").code == 3
        assert ckpt(*rename, "--drop-opaque").code == 0
        assert next(iter(loaded(Path("new.pt").read_bytes())["model"])) == "zero.weight"
        assert ckpt("export", "whole.pt", "-o", "new.safetensors", "--force").code == 0
    for word in ("keep", "drop"):
        assert ckpt("register", "whole.pt", "--name", word, f"--{word}-opaque").code == 0
        assert ckpt("diff", "whole.pt", word, "--exit-code").code == 0
        assert ckpt("export", word, "--drop-opaque", "-o", f"{word}.pt").code == 0
        assert list(loaded(Path(f"{word}.pt").read_bytes())) == ["model", "epoch"]


def test_file_that_cannot_be_judged_is_named(ckpt: Run) -> None:
    Path("object.pt").write_bytes(saved([foreign_tensor()]))
    Path("text.pt").write_text("no checkpoint")
    torch.save({"a": torch.ones(1)}, "good.pt")
    ran = ckpt("audit", "object.pt", "text.pt", "good.pt")
    assert ran.code == 3
    value, text, good = ran.out.splitlines()
    assert "cannot be judged: refused global tests.formats.everyday.Config at offset" in value
    assert "cannot be judged: neither a torch file nor safetensors" in text
    assert good == "good.pt    nothing runs when unpickled"


def test_tensors_whose_keys_would_change_are_not_written(ckpt: Run) -> None:
    torch.save(Namespace(a=[torch.ones(1)]), "run.pt")
    assert ckpt("show", "run.pt").code == 0
    refused = ckpt("register", "run.pt", "--drop-opaque")
    assert refused.code == 3
    assert "its keys would change" in refused.err


def test_conversion_leaves_objects_out_without_being_asked(ckpt: Run) -> None:
    write("omegaconf")
    ran = ckpt("export", "run.pt", "-o", "run.safetensors")
    assert ran.code == 0
    assert "not written (the new file cannot hold it): epoch, hyper_parameters" in ran.err
    assert ckpt("audit", "run.safetensors").out == "run.safetensors  nothing runs when unpickled\n"


def test_storages_of_dropped_objects_are_not_written(ckpt: Run) -> None:
    value = everyday.checkpoint(torch.nn.Linear(1000, 1000))
    for data in (saved(value), legacy(value)):
        Path("run.pt").write_bytes(data)
        ran = ckpt("rename", "run.pt", "--rule", "0->zero", "--drop-opaque", "-o", "new.pt",
                   "--force")  # fmt: skip
        assert ran.code == 0
        assert Path("new.pt").stat().st_size < 10_000
        assert next(iter(loaded(Path("new.pt").read_bytes())["state_dict"])) == "zero.weight"


def test_shared_values_stay_shared_and_views_keep_their_strides() -> None:
    from ckpt.formats.opaque import without_opaque

    tied, config = torch.arange(12.0).reshape(3, 4), {"lr": 0.1}
    value = {
        "model": {"a": tied, "b": tied.T, "c": tied[1:], "p": torch.nn.Parameter(torch.ones(2))},
        "bf8": [torch.ones(2).to(torch.float8_e4m3fn), -1, 2**70, float("inf"), "ü", (), (1, (2,))],
        "first": config, "second": config, "x": everyday.Config(),
        3: {(1, "k"): 2.5, b"y": True},
    }  # fmt: skip
    old_form = {**value, "bf8": [None, *value["bf8"][1:]]}  # torch cannot read float8 in it
    for data in (saved(value), legacy(old_form)):
        plain, changed = without_opaque(opened(data, "model"), "model")
        read = loaded(plain.source.read(0, plain.source.size))
        assert changed == ("x (tests.formats.everyday.Config)",)
        assert expected(read["model"]) == expected(value["model"])
        assert read["model"]["b"].stride() == (1, 4)
        assert read["model"]["a"].data_ptr() == read["model"]["b"].data_ptr()
        assert isinstance(read["model"]["p"], torch.nn.Parameter)
        assert read["first"] is read["second"]
        assert read["bf8"][1:] == value["bf8"][1:]
        assert read[3] == value[3]
        assert "x" not in read


def test_member_of_a_hostile_file_does_not_return(ckpt: Run) -> None:
    evil = hostile.call("os", "system", hostile.text("touch canary"))
    pickle = hostile.state_dict(evil, hostile.LIST + evil + hostile.APPEND)
    Path("evil.pt").write_bytes(torch_file(pickle, {"0": bytes(16)}))
    assert ckpt("audit", "evil.pt").out == (
        f"evil.pt  runs code when unpickled: os.system at offset {pickle.index(b'cos')}\n"
    )
    for words in (
        ["rename", "evil.pt", "--rule", "good->better"],
        ["rename", "evil.pt", "--rule", "good->better", "--in-place"],
        ["export", "evil.pt", "-o", "x.pt"],
        ["register", "evil.pt"],
    ):
        before = sorted(os.listdir())
        assert ckpt(*words).code == 3
        assert sorted(os.listdir()) == before
        assert ckpt(*words, "--drop-opaque").code == 0
        for path in Path().glob("*.pt"):
            with ZipFile(path) as archive:
                held = any(b"system" in archive.read(name) for name in archive.namelist())
            assert held == (path.name == "evil.pt" and "--in-place" not in words)
            if not held:
                assert isinstance(loaded(path.read_bytes()), dict)
            if path.name != "evil.pt":
                path.unlink()
        Path("evil.pt").write_bytes(torch_file(pickle, {"0": bytes(16)}))
    assert not Path("canary").exists()
    assert "os.system" not in safe_globals(["os.system", "a.B"]) or ""


_WATCHED = """
import sys
from ckpt.cli import main

events = []
def hook(event, arguments):
    if event in ("os.system", "subprocess.Popen", "socket.connect", "os.exec"):
        events.append(event)
    if event == "import" and str(arguments[0]).split(".")[0] in ("omegaconf", "torch", "tests"):
        events.append(str(arguments[0]))
sys.addaudithook(hook)
for words in (line.split() for line in sys.stdin.read().splitlines()):
    try:
        main(words)
    except SystemExit as done:
        assert done.code in (0, 3), (words, done.code)
print(events)
"""


def test_nothing_of_an_everyday_file_runs(folder: Path) -> None:
    commands = []
    for name in NAMES[:: by_effort(4, 1, 1)]:
        Path(f"{name}.pt").write_bytes(saved(everyday.checkpoint(everyday.objects()[name])))
        ref = f"{name}.pt::state_dict"
        rename = f"rename {ref} --rule 0->zero"
        commands += [f"show {ref}", f"audit {name}.pt", f"{rename} --keep-opaque -o k-{name}.pt"]
        commands += [
            f"{rename} --drop-opaque -o d-{name}.pt",
            f"diff {ref} k-{name}.pt::state_dict",
        ]
    ran = subprocess.run(
        [sys.executable, "-c", _WATCHED], input="\n".join(commands), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert ran.stdout.splitlines()[-1] == "[]"

import inspect
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import UnionType

import pytest
import torch

import ckpt
from ckpt.errors import AmbiguousStateError, FormatError, UsageError
from ckpt.ops.log import touches
from ckpt.refs import (
    DefinitionRef,
    DigestRef,
    FileRef,
    UrlRef,
    VersionRef,
    expect_alias,
    expect_name,
    is_alias,
    is_name,
    is_version,
    parse_file_ref,
    parse_ref,
    several,
    without_secrets,
)


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("v3", VersionRef(None, "v3")),
        ("mnist-cnn", VersionRef("mnist-cnn", "latest")),
        ("mnist-cnn:v3", VersionRef("mnist-cnn", "v3")),
        ("mnist-cnn@prod", VersionRef("mnist-cnn", "prod")),
        ("sha256:3fa9c1d2", DigestRef("sha256:3fa9c1d2")),
        ("old.pt", FileRef(Path("old.pt"))),
        ("https://h/a.pt", UrlRef("https://h/a.pt")),
        ("https://h/a.pt::ema", UrlRef("https://h/a.pt", "ema")),
        ("http://[::1]:80/a.pt", UrlRef("http://[::1]:80/a.pt")),
        ("http://[::1]/a.pt::ema", UrlRef("http://[::1]/a.pt", "ema")),
        ("hf://org/repo@rev/a.pt", UrlRef("hf://org/repo@rev/a.pt")),
        ("s3://b/team#net@prod", UrlRef("s3://b/team", version="net@prod")),
        ("s3://b/team#net:v1::ema", UrlRef("s3://b/team", version="net:v1::ema")),
        ("file:///a%20b/c.pt::ema", FileRef(Path("/a b/c.pt"), "ema")),
        ("./old", FileRef(Path("old"))),
        ("net:v1::ema", VersionRef("net", "v1", "ema")),
        ("net@prod::ema", VersionRef("net", "prod", "ema")),
        ("v3::ema", VersionRef(None, "v3", "ema")),
        ("run/old.pt::model", FileRef(Path("run/old.pt"), "model")),
        ("a.SAFETENSORS", FileRef(Path("a.SAFETENSORS"))),
        ("models/mnist_cnn.py:Net", DefinitionRef("models/mnist_cnn.py:Net")),
        ("net.py:Net", DefinitionRef("net.py:Net")),
        (
            "torchvision.models:resnet18",
            DefinitionRef(
                "torchvision.models:resnet18", VersionRef("torchvision.models", "resnet18")
            ),
        ),
        ("mnist:prod", DefinitionRef("mnist:prod", VersionRef("mnist", "prod"))),
        ("v999999999", VersionRef(None, "v999999999")),
        ("v1234567890", VersionRef("v1234567890", "latest")),
        ("v0", VersionRef("v0", "latest")),
        ("x" * 128, VersionRef("x" * 128, "latest")),
        ("sha256:3fa9", DigestRef("sha256:3fa9")),
        ("sha256:" + "0" * 64, DigestRef("sha256:" + "0" * 64)),
        ("a.b:v1", DefinitionRef("a.b:v1", VersionRef("a.b", "v1"))),
        ("a-b:c", VersionRef("a-b", "c")),
        ("_a:Net", DefinitionRef("_a:Net", None)),
        ("runs/net.py", FileRef(Path("runs/net.py"))),
        ("old.pt::", FileRef(Path("old.pt"))),
        ("runs\\old", FileRef(Path("runs\\old"))),
        (".", FileRef(Path())),
        ("sha256:3fa", VersionRef("sha256", "3fa")),
        ("sha256:" + "0" * 65, VersionRef("sha256", "0" * 65)),
        ("..", FileRef(Path(".."))),
        ("a.b@c", VersionRef("a.b", "c")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_ref_is_read(text: str, ref: object) -> None:
    assert parse_ref(text) == ref


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a b",
        "@prod",
        "m@",
        "-rf",
        "v3:",
        "é",
        "x" * 129,
        "m@a:b",
        "m:a@b",
        "m::",
        "x.",
        "::a",
    ],
)
def test_what_is_no_ref_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_ref(text)


@pytest.mark.parametrize("name", ["..", ".git", "a/b", "-rf", "x.", "x" * 300, "é", "\x1b[1m", ""])
def test_fault_23_name_that_no_file_system_should_see_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        expect_name(name)


@pytest.mark.parametrize(
    "name", ["prod", "a", "v0", "v01", "V1", "v1234567890", "x" * 128, "a.b_c-d"]
)
def test_name_that_an_alias_may_have(name: str) -> None:
    assert expect_alias(name) == expect_name(name) == name
    assert is_alias(name)


@pytest.mark.parametrize("name", ["latest", "v1", "v10", "v999999999"])
def test_what_a_ref_reads_as_a_version_is_no_alias(name: str) -> None:
    assert is_name(name)
    assert not is_alias(name)
    assert is_version(name) == (name != "latest")
    with pytest.raises(UsageError, match="it already names a version"):
        expect_alias(name)


def test_file_with_colons_in_its_own_name_is_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_file_ref("a.pt::model") == FileRef(Path("a.pt"), "model")
    Path("a.pt::model").touch()
    assert parse_file_ref("a.pt::model") == FileRef(Path("a.pt::model"))
    assert parse_ref("a.pt::model") == FileRef(Path("a.pt::model"))


def test_file_ref_with_a_path_longer_than_a_file_name(tmp_path: Path) -> None:
    long = "k" * 300
    file = tmp_path / "a.pt"
    torch.save({long: {"w": torch.ones(2)}, "b": {"w": torch.zeros(2)}}, file)
    with pytest.raises(AmbiguousStateError) as refused:
        ckpt.open(file)
    assert refused.value.names == (long, "b")
    for name, value in zip(refused.value.names, torch.load(file).values(), strict=True):
        with ckpt.open(f"{file}::{name}") as found:
            assert torch.equal(found["w"], value["w"])
    with pytest.raises(FormatError, match="holds no state_dict"):
        ckpt.open(f"{file}::{long}{long}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ann:pw@host/x.pt: no such file", "https://…@host/x.pt: no such file"),
        ("https://pw@host/x.pt?sig=pw#net names", "https://…@host/x.pt?…#net names"),
        ("'s3://key:p/w@b/x' and http:/ann:pw@h", "'s3://…@b/x' and http:/…@h"),
        ("hf://org/repo@rev/x.pt", "hf://org/repo@rev/x.pt"),
        ("https://host:80/x.pt::ema", "https://host:80/x.pt::ema"),
        ("net.py:Net(a=1) or mnist-cnn@prod?", "net.py:Net(a=1) or mnist-cnn@prod?"),
    ],
)
def test_fault_41_no_credential_is_shown(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@pytest.mark.parametrize("one", ["net:v1", Path("old.pt"), 3])
def test_one_text_or_path_is_not_its_letters(one: object) -> None:
    assert several(one) == (one,)
    assert several([one]) == several(iter([one])) == several({one: ""}) == (one,)


def test_functions_of_several_take_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a", "b", "ab")):
        ckpt.register({"w": torch.full((3,), float(seed))}, name=name)
    Path("config.json").write_text("{}")
    torch.save({"w": torch.ones(3)}, "w.pt")
    assert [version.ref for version in ckpt.rm("ab")] == ["ab:v1"]
    assert [version.ref for version in ckpt.ls()] == ["a:v1", "b:v1"]
    assert [version.ref for version in ckpt.restore("ab:v1").versions] == ["ab:v1"]
    for file in ("w.pt", Path("w.pt")):
        assert [audited.name for audited in ckpt.audit(file)] == ["w.pt"]
        assert ckpt.repair_store(file).taken == ()
    assert ckpt.tag("a:v1", "paper")[1] == ["paper"]
    assert [version.ref for version in ckpt.ls(where="tag=paper")] == ["a:v1"]
    assert list(touches("w", "a:v1")) == ["w"]
    for files in ("config.json", Path("config.json")):
        weights = {"w": torch.full((3,), float(len(ckpt.ls()) + 10))}
        added = ckpt.register(weights, name="c", tags="golden", with_files=files)
        assert (added.labels.tags, added.side_files) == (("golden",), ("config.json",))


@pytest.mark.parametrize("name", ckpt.__all__)
def test_no_function_takes_only_several(name: str) -> None:
    """A parameter for several texts says that it takes one; a mapping, or `*refs`, is neither."""
    function = getattr(ckpt, name)
    if not inspect.isfunction(function):
        return
    for parameter in inspect.signature(function).parameters.values():
        kind = parameter.annotation
        is_union = typing.get_origin(kind) in (UnionType, typing.Union)
        kinds = typing.get_args(kind) if is_union else (kind,)
        if {typing.get_origin(each) for each in kinds} & {Iterable, Sequence}:
            assert str in kinds, f"{name}({parameter.name}=)"

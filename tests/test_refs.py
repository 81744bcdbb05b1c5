from pathlib import Path

import pytest

from ckpt.errors import UsageError
from ckpt.refs import (
    DefinitionRef,
    DigestRef,
    FileRef,
    VersionRef,
    expect_name,
    parse_ref,
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
        ("./old", FileRef(Path("old"))),
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
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_ref_is_read(text: str, ref: object) -> None:
    assert parse_ref(text) == ref


@pytest.mark.parametrize("text", ["", "a b", "@prod", "m@", "-rf", "v3:", "é", "x" * 129])
def test_what_is_no_ref_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_ref(text)


@pytest.mark.parametrize("name", ["..", ".git", "a/b", "-rf", "x.", "x" * 300, "é", "\x1b[1m", ""])
def test_fault_23_name_that_no_file_system_should_see_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        expect_name(name)

"""`ckpt card`, and what `ckpt export` writes besides: hubs' own reader is the oracle."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open

from tests.cli.documents import make_registry
from tests.cli.support import Run, register_seeds
from tests.show.site.registries import HOSTILE


@pytest.fixture
def team(ckpt: Run, folder: Path) -> Run:
    make_registry(folder)
    return ckpt


def test_hubs_read_the_front_matter(team: Run, folder: Path) -> None:
    assert team("card", "v1", "--license", "apache-2.0", "-o", "card.md").out == "wrote card.md\n"
    data = ModelCard.load(folder / "card.md").data
    assert (data.license, data.library_name, data.tags) == ("apache-2.0", "pytorch", ["golden"])
    assert data.metrics == ["accuracy", "loss"]
    assert data.model_name == "net:v1"
    results = data.eval_results or []
    assert [(each.metric_type, each.metric_value) for each in results] == [
        ("accuracy", 0.5),
        ("loss", 0.5),
    ]
    assert {(each.task_type, each.dataset_name) for each in results} == {
        ("image-classification", "digits")
    }


def test_card_tells_training_lineage_and_use(team: Run) -> None:
    text = team("card", "v2").out
    for line in (
        "# net:v2",
        "state = ckpt.load('net:v2')",
        "Of net:v1, from which this version was made.",
        "- net:v2: renamed, rename of v1, accuracy 50.00%  loss 1",
        "- net:v1: trained, ",
    ):
        assert line in text
    assert "| recipe.lr " in text
    assert team("card", "v2", "--task", "other", "--json").data["task"] == "other"


@pytest.mark.parametrize("value", [1e-07, 1e22, 0.1, -3.0, 5e-324])
def test_numbers_are_read_as_numbers(ckpt: Run, folder: Path, value: float) -> None:
    register_seeds(ckpt, folder, 1)
    ckpt("metric", "v1", f"loss={value!r}")
    ckpt("card", "v1", "-o", "card.md")
    (result,) = ModelCard.load(folder / "card.md").data.eval_results or []
    assert result.metric_value == value


@pytest.mark.parametrize("text", [*HOSTILE, "---", "a: b # c", "\x85\u2028\ud800", "null", "😀"])
def test_fault_43_any_text_is_read_as_text(ckpt: Run, folder: Path, text: str) -> None:
    import ckpt as package

    torch.save({"w": torch.ones(2)}, folder / "net.pt")
    package.register("net.pt", metrics={text: 1.5} if text != "\x85\u2028\ud800" else {"a": 1.5})
    assert ckpt("card", "v1", "--license", text, "-o", "card.md").code == 0
    data = ModelCard.load(folder / "card.md").data
    assert data.license == text or text.startswith("\x85")
    assert [each.metric_value for each in data.eval_results or []] == [1.5]


def test_card_of_a_file_is_refused(ckpt: Run, old: Path) -> None:
    ran = ckpt("card", "old.pt")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "error: old.pt is not a version, so it has no record\n"
        "hint:  to add one:  ckpt register old.pt\n"
    )


def test_export_writes_the_card_beside_a_file_and_into_a_folder(team: Run, folder: Path) -> None:
    assert team("export", "v1", "-o", "net.safetensors", "--card").code == 0
    assert (folder / "net.md").read_text() == team("card", "v1").out
    assert team("export", "v1", "-o", "out", "--card").code == 0
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "README.md",
        "a.json",
        "net.pt",
    ]
    assert (folder / "out" / "README.md").read_text() == team("card", "v1").out
    before = sorted(folder.iterdir())
    ran = team("export", "v1", "-o", "net.pth", "--card")
    assert (ran.code, "net.md: already exists" in ran.err) == (2, True)
    assert sorted(folder.iterdir()) == before, "neither of the two"


def test_metadata_is_read_by_the_library(team: Run, folder: Path) -> None:
    words = ["--meta", "license=mit", "--meta", "who=a=b 😀"]
    assert team("export", "v3", "-o", "net.safetensors", *words).code == 0
    with safe_open(folder / "net.safetensors", "pt") as file:
        assert file.metadata() == {
            "format": "pt",
            "note": "text",
            "license": "mit",
            "who": "a=b 😀",
        }
    again = ["export", "net.safetensors", "-o", "again.safetensors", "--meta", "who=c"]
    assert team(*again).code == 0
    with safe_open(folder / "again.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "note": "text", "license": "mit", "who": "c"}


@pytest.mark.parametrize(
    ("out", "meta", "message"),
    [
        ("x.pt", "a=b", "x.pt: only a .safetensors file holds --meta"),
        ("x.safetensors", "format=np", "the name 'format' is that of the container's own metadata"),
        ("x.safetensors", "a.weight=b", "a.weight=b: names a key"),
        ("x.safetensors", "note=a.bias", "note=a.bias: names a key"),
        ("x.safetensors", "a", "Invalid value for '--meta': 'a' is not NAME=TEXT"),
    ],
)
def test_metadata_that_readers_would_misread_is_refused(
    team: Run, folder: Path, out: str, meta: str, message: str
) -> None:
    ran = team("export", "v1", "-o", out, "--meta", meta)
    assert (ran.code, ran.out, (folder / out).exists()) == (2, "", False)
    assert message in ran.err


def test_card_is_in_the_document_too(team: Run) -> None:
    data = team("card", "v1", "--json").data
    assert data["text"] == team("card", "v1").out
    assert json.dumps(data["license"]) == "null"

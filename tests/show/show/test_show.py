"""What `ckpt show` prints: the head, and what is noted beside a tensor."""

from typing import Any

import pytest

from ckpt.ops.show import Shown
from ckpt.ops.show.deep import Deep, Examined
from ckpt.show.show import head_text, shown_data, shown_text
from ckpt.tensors import TensorEntry

ENTRIES = (
    TensorEntry("wte.weight", "float32", (3, 4), 0),
    TensorEntry("turned", "float32", (4, 3), 48, stride=(1, 4)),
    TensorEntry("wide", "int64", (1 << 20, 1 << 20), 96, stride=(0, 0)),
    TensorEntry("slid", "float32", (3, 3), 104, stride=(1, 1)),
    TensorEntry("head.weight", "float32", (3, 4), 0),
)


def shown(**more: Any) -> Shown:
    ties = {"head.weight": "wte.weight"}
    fields = {"entries": ENTRIES, "ties": ties, "rest": {}, **more}
    return Shown("x.pt", "torch-zip", 2_500_000, **fields)


def test_head_has_container_writer_and_totals() -> None:
    assert head_text(shown(written_by="torch.save of torch 2.1 or newer")) == (
        "x.pt  torch-zip · 2.5 MB · written by torch.save of torch 2.1 or newer\n"
        "  5 keys · 1,099,511,627,809 elements: 33 of float32, 1,099,511,627,776 of int64 · "
        "8.8 TB of tensors · 1 key shares bytes with another · 2 expanded views"
    )


def test_head_of_a_definition_is_one_line() -> None:
    definition = Shown("m.py:Net", None, None, ENTRIES[:1], {})
    assert head_text(definition) == "m.py:Net  1 key · 12 elements of float32 · 48 B of tensors"


def test_head_of_nothing() -> None:
    assert head_text(Shown("x.pt", "torch-zip", 500, (), {})) == (
        "x.pt  torch-zip · 500 B\n  0 keys · 0 elements of no dtype · 0 B of tensors"
    )


def test_views_and_ties_are_noted() -> None:
    table = shown_text(shown(), width=None).split("\n\n")[1]
    assert table == (
        "key          shape            dtype      size  note\n"
        "-----------  ---------------  -------  ------  ------------------\n"
        "wte.weight   3 4              float32    48 B\n"
        "turned       4 3              float32    48 B  strided\n"
        "wide         1048576 1048576  int64    8.8 TB  expanded\n"
        "slid         3 3              float32    36 B  expanded\n"
        "head.weight  3 4              float32    48 B  tied to wte.weight"
    )


def test_other_state_dicts_are_counted() -> None:
    rest = {"ema": {"a": "a tensor", "b": {"c": "a tensor"}}, "mixed": {"a": "a tensor", "n": 1}}
    text = shown_text(shown(rest=rest), width=None)
    assert "  ema       2 tensors\n" in text
    assert "  mixed     a a tensor, n 1" in text


def test_plain_tensors_need_no_note() -> None:
    table = shown_text(shown(entries=ENTRIES[:1], ties={}), width=None).split("\n\n")[1]
    assert table.splitlines()[0] == "key         shape    dtype      size"


def deep(nan: int | None = 0, inf: int | None = 0, **more: Any) -> Deep:
    digest = "sha256:" + "0123456789abcdef" * 4
    return Deep({entry.key: Examined(digest, nan, inf) for entry in ENTRIES}, **more)


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (deep(sums=14), "14 CRC-32 checksums correct · no NaN · no Inf"),
        (
            deep(sums=1, sums_absent=2),
            "1 CRC-32 checksum correct · 2 records without a checksum · no NaN",
        ),
        (deep(sums_absent=2), "no checksums in the file · no NaN"),
        (deep(), "no checksums in the file · no NaN"),
        (deep(objects=3), "3 objects intact · no NaN"),
        (deep(objects=0), "0 objects intact · no NaN"),
        (deep(400, None, objects=1), "1 object intact · 2,000 NaN in 5 keys · no Inf"),
        (deep(None, 1, sums=2), "2 CRC-32 checksums correct · no NaN · 5 Inf in 5 keys"),
    ],
)
def test_what_reading_found_stands_in_the_head(found: Deep, line: str) -> None:
    assert f"\n  read in full: {line}" in head_text(shown(deep=found))


def test_counts_and_digests_stand_beside_the_tensors() -> None:
    found = deep(None, None)
    tensors = {**found.tensors, "turned": Examined("sha256:" + "f" * 64, 1234, 0)}
    table = shown_text(shown(deep=Deep(tensors)), width=None).split("\n\n")[1].splitlines()
    assert table[0].split() == ["key", "shape", "dtype", "size", "note", "nan", "digest"]
    assert table[3].split()[-3:] == ["strided", "1,234", "sha256:ffffffff"]
    assert table[2].split()[-2:] == ["B", "sha256:01234567"]


def test_data_has_the_words_of_the_documentation() -> None:
    data = shown_data(shown(deep=deep(1, None, sums=2, sums_absent=3)))
    assert data["elements"] == {"float32": 33, "int64": 1 << 40}
    assert (data["keys"], data["tied_keys"]) == (5, 1)
    assert data["deep"] == {"sums": 2, "sums_absent": 3, "objects": None}
    assert data["tensors"][1]["stride"] == [1, 4]
    last = data["tensors"][4]
    assert last == {
        "key": "head.weight",
        "shape": [3, 4],
        "dtype": "float32",
        "size": 48,
        "digest": "sha256:" + "0123456789abcdef" * 4,
        "stride": None,
        "tied_to": "wte.weight",
        "nan": 1,
        "inf": None,
    }


def test_data_without_deep_counts_nothing() -> None:
    data = shown_data(shown())
    assert data["deep"] is None
    assert "nan" not in data["tensors"][0]

"""Lineage and curves as drawings."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.ops.plot import Curves
from ckpt.ops.site import Origin, site
from ckpt.registry.registry import Registry
from ckpt.registry.version import Version
from ckpt.show.site.charts import charts
from ckpt.show.site.lineage import family, graph
from ckpt.show.site.links import Links
from tests.show.site.registries import make_ordinary


def origins(parents: list[int | None], times: list[int]) -> dict[str, Origin]:
    """Versions of `net`, each with the number of its parent."""
    return {
        f"net:v{n}": Origin(
            Version(
                **{"model": "net", "number": n, "manifest": "", "content": "", "file": None},
                **{"size": 0, "keys": 0, "new_bytes": 0, "made_by": "", "created": str(time)},
            ),
            kind="trained",
            named="",
            parent=None if parent is None else f"net:v{parent}",
        )
        for n, (parent, time) in enumerate(zip(parents, times, strict=True))
    }


@st.composite
def families(draw: st.DrawFn) -> dict[str, Origin]:
    count = draw(st.integers(1, 12))
    parents = [draw(st.none() | st.integers(0, n - 1)) if n else None for n in range(count)]
    return origins(parents, [draw(st.integers(0, 5)) for _ in range(count)])


@given(families())
def test_children_are_above_parents_and_nobody_is_lost(known: dict[str, Origin]) -> None:
    order = family(known, known)
    assert sorted(order) == sorted(known)
    for ref, origin in known.items():
        assert origin.parent is None or order.index(ref) < order.index(origin.parent)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder: Path = tmp_path_factory.mktemp("ordinary")
    make_ordinary(folder)
    return Registry(folder)


def test_every_version_is_joined_with_its_parent(registry: Registry) -> None:
    found = site(registry=registry)
    refs = family([ref for ref in found.origins if ref.startswith("net:")], found.origins)
    drawn = graph(refs, found, Links(found.index.models), root="", here="net:v2")
    parents = {ref: found.origins[ref].parent for ref in refs}
    assert parents["net:v2"] == "net:v1"
    assert parents["net:v9"] == "net:v8"
    places = {node.name: (node.x, node.y) for node in drawn.nodes}
    for ref, parent in parents.items():
        ends = [edge for edge in drawn.edges if edge.startswith("M{} {}V".format(*places[ref]))]
        assert len(ends) == (parent is not None)
        if parent is not None:
            assert re.findall(r"\d+", ends[0])[-1] == str(places[parent][1])
    (here,) = [node for node in drawn.nodes if node.here]
    assert (here.name, here.link) == ("net:v2", "")
    assert {node.link for node in drawn.nodes} >= {"models/net--2/v9.html"}
    assert [node.aliases for node in drawn.nodes if node.name == "net:v3"] == [["prod"]]


def test_curve_has_a_gap_where_it_is_not_finite() -> None:
    nan = float("nan")
    series = {"loss": [2.0, nan, 1.0, 0.0], "accuracy": [nan] * 4}
    (chart,) = charts(Curves("net:v1", "net:v1", series, epoch=4, test={"loss": 4.0}))
    assert [line.path for line in chart.lines] == ["M50.0 91.0M250.0 130.5L350.0 170.0"]
    assert chart.star == (350.0, 12.0)
    assert [text for _, text in chart.columns] == ["1", "2", "3", "4"]
    assert chart.said == ("Solid line: training, 2 to 0 in 4 epochs. Circle: test, 4, of epoch 4.")


@given(st.lists(st.floats(), min_size=1, max_size=300))
def test_curves_of_any_numbers_stay_in_the_picture(values: list[float]) -> None:
    series = {"loss": values, "accuracy": values}
    for chart in charts(Curves("v", "v", series)):
        text = " ".join(line.path for line in chart.lines)
        numbers = [float(each) for each in re.findall(r"-?[\d.]+(?:e[+-]?\d+)?", text)]
        assert all(0 <= each <= 360 for each in numbers)
        assert "nan" not in text
        assert "inf" not in text

"""Recipes as files: the package's own, and those of people."""

from pathlib import Path
from typing import Any

import pytest

from ckpt.definitions import find_definition
from ckpt.errors import RefError, UsageError
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.recipes.recipe_file import NAMES, Asked, read_recipe, recipe_for

BAD = {
    "epoch = 3": "a recipe has no setting 'epoch'",
    "epochs = 'three'": "epochs is 'three', expected a value like 14",
    "epochs = 1.5": "epochs is 1.5",
    "epochs = true": "epochs is True",
    "data_dir = 3": "data_dir is 3, expected a path",
    "epochs =": "not a valid TOML file",
    "x = " + "[" * 5000: "r.toml: ",
}


def test_classic_is_the_default() -> None:
    assert Recipe(**read_recipe("classic")) == Recipe()


@pytest.mark.parametrize("name", NAMES)
def test_recipes_of_the_package_are_recipes(name: str) -> None:
    Recipe(**read_recipe(name))


@pytest.mark.parametrize("text", BAD, ids=[text[:20] for text in BAD])
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UsageError) as refused:
        read_recipe(str(tmp_path / "r.toml"))
    assert BAD[text] in str(refused.value)


def test_recipe_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(RefError) as refused:
        read_recipe("fats")
    assert "classic, fast" in str(refused.value.hint)


def test_number_may_be_whole(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("lr = 1\ndata_dir = 'data'\n")
    assert read_recipe(str(tmp_path / "r.toml")) == {"lr": 1.0, "data_dir": Path("data")}


NET: Any = find_definition("ckpt.models.mnist_cnn:Net").factory


@pytest.mark.parametrize("asked", [NET, "ckpt.models.mnist_cnn:Net", None, "classic"], ids=str)
def test_python_code_may_ask_by_class_ref_or_recipe(asked: Asked | None) -> None:
    assert recipe_for(asked, {"epochs": 2}) == Recipe(epochs=2)


def test_a_class_is_a_setting_too() -> None:
    assert recipe_for("fast", {"model": NET}) == Recipe(**read_recipe("fast"))
    assert recipe_for("net.py:Net(width=2)", {}).model == "net.py:Net(width=2)"
    assert recipe_for("net.py", {}).model == "net.py", "refused when it is built, with its classes"


def test_a_recipe_file_may_have_a_colon(tmp_path: Path) -> None:
    file = tmp_path / "a:b.toml"
    file.write_text("epochs = 3\n")
    assert recipe_for(str(file), {}) == recipe_for(file, {}) == Recipe(epochs=3)


def test_two_models_are_refused() -> None:
    with pytest.raises(UsageError, match="two models: the first argument and model="):
        recipe_for(NET, {"model": "net.py:Net"})


def test_a_definition_in_place_of_a_recipe_file_is_told() -> None:
    with pytest.raises(RefError, match=r"net\.py:Net: no such recipe") as refused:
        read_recipe("net.py:Net")
    assert refused.value.hint == "--model net.py:Net  takes a definition"

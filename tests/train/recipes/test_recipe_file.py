"""Recipes as files: the package's own, and those of people."""

from pathlib import Path

import pytest

from ckpt.errors import RefError, UsageError
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.recipes.recipe_file import NAMES, read_recipe

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

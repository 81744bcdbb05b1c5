"""The recipe for conda-forge says what pyproject.toml says."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
# Packages that conda-forge has under another name.
NAMES = {"isal": "python-isal"}


@pytest.fixture
def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture
def recipe() -> Any:
    """The recipe, with the values of its context."""
    text = (ROOT / "recipe" / "recipe.yaml").read_text(encoding="utf-8")
    for name, value in yaml.safe_load(text)["context"].items():
        text = text.replace(f"${{{{ {name} }}}}", value)
    return yaml.safe_load(text)


def conda(requirement: str) -> str:
    found = Requirement(requirement)
    return f"{NAMES.get(found.name, found.name)} {found.specifier}".strip()


def test_recipe_is_of_this_version_and_licence(recipe: Any, project: Any) -> None:
    ours = project["project"]
    assert recipe["package"] == {"name": ours["name"], "version": ours["version"]}
    about = recipe["about"]
    assert about["license"] == ours["license"]
    assert [about["license_file"]] == ours["license-files"]
    assert about["summary"] == ours["description"]
    assert (ROOT / about["license_file"]).exists()


def test_recipe_needs_what_the_package_needs(recipe: Any, project: Any) -> None:
    ours, needs = project["project"], recipe["requirements"]
    python = f"python {ours['requires-python']}"
    assert sorted(needs["run"]) == sorted([python, "__unix", *map(conda, ours["dependencies"])])
    lowest = ours["requires-python"].removeprefix(">=")
    build = [*map(conda, project["build-system"]["requires"])]
    assert sorted(needs["host"]) == sorted([f"python {lowest}.*", "pip", *build])


def test_recipe_has_the_entry_points(recipe: Any, project: Any) -> None:
    ours = [f"{name} = {target}" for name, target in project["project"]["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == ours
    assert recipe["build"]["noarch"] == "python"

import compileall
from collections.abc import Callable
from pathlib import Path

import pytest

import ckpt
from tests.faults.stage import BY_NAME, Scene, scene


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Scene]:
    """The scene of a command, built once.

    Everything is compiled first: a command that writes its own bytecode makes other calls than
    the next one, and calls are counted.
    """
    compileall.compile_dir(Path(ckpt.__file__).parent, quiet=2)
    made: dict[str, Scene] = {}

    def named(name: str) -> Scene:
        if name not in made:
            made[name] = scene(BY_NAME[name], tmp_path_factory.mktemp(name))
        return made[name]

    return named


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a registry is copied for each fault."""
    return tmp_path / "registry"

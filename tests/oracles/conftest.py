"""The fixtures of the command line, for tests in which torch judges it."""

from tests.cli.conftest import ckpt as ckpt
from tests.cli.conftest import folder as folder

from tests.cli.conftest import ckpt as ckpt
from tests.cli.conftest import folder as folder

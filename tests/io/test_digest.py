import os
import subprocess
import sys
import zlib

import pytest

from ckpt.io import digest

SIZES = [0, 1, 15, 16, 17, 1 << 10, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, (1 << 18) + 13, 1 << 22]


@pytest.fixture(params=["isal", "zlib"])
def _computed_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each computes it; without isal's package, importing it fails."""
    digest._fast_crc32.cache_clear()
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)
    used = digest._fast_crc32()
    assert (used is zlib.crc32) == (request.param == "zlib")
    yield
    digest._fast_crc32.cache_clear()


@pytest.mark.usefixtures("_computed_by")
@pytest.mark.parametrize("nbytes", SIZES)
def test_crc32_is_that_of_zlib(nbytes: int) -> None:
    for data in (os.urandom(nbytes), bytes(nbytes), b"\xff" * nbytes):
        for before in (0, 1, 0xFFFFFFFF, zlib.crc32(b"before")):
            assert digest.crc32(data, before) == zlib.crc32(data, before)


@pytest.mark.usefixtures("_computed_by")
def test_crc32_of_parts_is_that_of_the_whole() -> None:
    data = os.urandom(3 << 18)
    for cut in (1, 1 << 16, (1 << 18) + 5, len(data) - 1):
        assert digest.crc32(data[cut:], digest.crc32(data[:cut])) == zlib.crc32(data)


def test_crc32_of_few_bytes_imports_no_isal() -> None:
    call = "from ckpt.io import digest; digest.crc32(bytes(1000))"
    program = f"import sys; {call}; sys.exit('isal' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0

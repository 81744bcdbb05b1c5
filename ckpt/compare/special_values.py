"""Count NaN and infinities, chunk after chunk. A complex number counts if one of its parts does."""

from ckpt.compare.numbers import floats, parts_of
from ckpt.dtypes import itemsize

_BLOCK = 1 << 16  # bytes; the intermediate results stay in the processor's cache


class SpecialValues:
    """Counts the NaN and the infinities of one tensor.

    Args:
        dtype: One that `has_special_values`.

    Attributes:
        nan: Elements that are NaN.
        inf: Elements that are infinite.
    """

    def __init__(self, dtype: str) -> None:
        self.nan = 0
        self.inf = 0
        self._dtype = dtype
        self._left = b""  # the start of an element whose end is in the next chunk

    def add(self, chunk: bytes) -> None:
        """The next bytes of the tensor."""
        data = self._left + chunk if self._left else chunk
        whole = len(data) - len(data) % itemsize(self._dtype)
        self._left = data[whole:]
        view = memoryview(data)
        for begin in range(0, whole, _BLOCK):
            self._count(view[begin : min(begin + _BLOCK, whole)])

    def _count(self, data: memoryview) -> None:
        import numpy as np

        values = floats(self._dtype, data)
        if np.isfinite(values).all():  # nearly always
            return
        elements = values.reshape(-1, parts_of(self._dtype))
        self.nan += int(np.isnan(elements).any(axis=1).sum())
        self.inf += int(np.isinf(elements).any(axis=1).sum())

"""Tensors by all of their makers, and the states that change them afterwards."""

import struct
from collections.abc import Callable

import torch

from tests.formats.fuzz import subclasses
from tests.formats.fuzz.draw import Draw
from tests.formats.fuzz.opcodes import FALSE, MARK, NONE, TRUE, float_, small, usual_tuple
from tests.formats.fuzz.storages import DTYPES, UNTYPED, Storages

TRICKS = (
    *("usual form", "usual form altered", "v1", "v3", "v3 of another dtype", "metadata"),
    *("bit that is false", "requires grad", "hooks", "parameter", "parameter with state"),
    *("from type", "state that sets data", "state that sets others", "state in two parts"),
    *("state by build", "set_ by build", "Parameter by newobj", "Parameter by reduce"),
    *("Tensor by newobj", "Tensor by reduce", "tensor of a class", "sparse", "quantised"),
    *("nested", "meta tensor", "wrapper subclass", "tensor of numpy", "tensor aliased"),
    *("from type of a subclass", "wrapper of a subclass", "inner tensors", "sparse compressed"),
    *("quantised by channel", "tensor of another device"),
)
OWN = sorted(dir(torch.Tensor))


class Tensors(Storages):
    """Makes tensors."""

    def __init__(self, draw: Draw, *, legacy: bool = False) -> None:
        super().__init__(draw, legacy=legacy)
        self._depth = 0

    def tensor(self) -> bytes:
        """A tensor by one of its makers."""
        draw = self._draw
        if draw.trick("tensor aliased", 0.3):
            found = self._recall(lambda kind: kind[0] == "tensor")
            if found:
                return self._built(found)
        self._depth += 1
        makers = [make for name, make in self._makers().items() if draw.trick(name, 0.5)]
        code = draw.rng.choice(makers)() if makers and self._depth < 6 else self.plain()
        self._depth -= 1
        return self._built(self._keep(code, ("tensor",), 0.4))

    def _makers(self) -> dict[str, Callable[[], bytes]]:
        return {
            "usual form": self.usual,
            "v1": lambda: self.plain(1),
            "v3": lambda: self.plain(3),
            "parameter": self.parameter,
            "parameter with state": self._parameter_with_state,
            "from type": self._from_type,
            "Parameter by newobj": lambda: self._parameter_class(new=True),
            "Parameter by reduce": lambda: self._parameter_class(new=False),
            "Tensor by newobj": lambda: self._tensor_class("Tensor", new=True),
            "Tensor by reduce": lambda: self._tensor_class("Tensor", new=False),
            "tensor of a class": lambda: self._tensor_class(
                self._draw.one("FloatTensor", "LongTensor"), new=self._draw.chance(0.5)
            ),
            "sparse": self._sparse,
            "quantised": self._quantised,
            "nested": self._nested,
            "meta tensor": self._meta,
            "wrapper subclass": self._wrapper,
            "tensor of numpy": self._of_numpy,
            "from type of a subclass": self._from_subclass,
            "wrapper of a subclass": lambda: self._wrapper(self._subclass()),
            "sparse compressed": self._sparse_compressed,
            "quantised by channel": lambda: self._quantised(by_channel=True),
            "tensor of another device": self._of_another_device,
        }

    def plain(self, version: int = 2) -> bytes:
        """A call of `_rebuild_tensor`, `_rebuild_tensor_v2` or `_rebuild_tensor_v3`."""
        suffix = "" if version == 1 else f"_v{version}"
        code = self.named("torch._utils", f"_rebuild_tensor{suffix}")
        return code + MARK + b"".join(self._plain_arguments(version)) + b"tR"

    def _plain_arguments(self, version: int) -> list[bytes]:
        draw = self._draw
        storage, (_, kind, numel) = self.storage()
        first, shape, stride = self._geometry(numel)
        parts = [storage, self._number(first), self.sizes(shape), self.sizes(stride)]
        if version == 1:
            return parts
        parts.append(TRUE if draw.trick("requires grad") else FALSE)
        if draw.trick("hooks"):
            parts.append(draw.one(NONE, b"}", b"]", b")"))
        else:
            parts.append(self.call("collections", "OrderedDict"))
        if version == 3:
            dtype = _dtype_of(kind)
            if dtype is None or draw.trick("v3 of another dtype"):
                dtype = draw.rng.choice(DTYPES)
            parts.append(self.named("torch", dtype))
        if draw.trick("metadata"):
            parts.append(self._metadata())
        return parts

    def _metadata(self) -> bytes:
        draw = self._draw
        if draw.chance(0.4):
            return draw.one(NONE, b"}", b"]")
        bit = self.text(draw.one("conj", "neg", "other"))
        return b"}" + bit + (FALSE if draw.trick("bit that is false") else TRUE) + b"s"

    def usual(self) -> bytes:
        """A tensor with exactly the opcodes of `torch.save`, or nearly so."""
        draw = self._draw
        key, kind, numel = self._stored()
        first, shape, stride = self._geometry(numel)
        if (
            not shape
            or not 0 <= min((first, *shape, *stride)) <= max((first, *shape, *stride)) < 256
        ):
            return self.plain()
        data = key.encode()
        module = "torch.storage" if kind == UNTYPED else "torch"
        parts = [
            self._known("torch._utils", "_rebuild_tensor_v2"),
            *(b"((", self._word("storage"), self._known(module, kind)),
            *(b"X" + struct.pack("<I", len(data)) + data, self._put("text", key)),
            *(
                self._word("cpu"),
                small([numel]),
                b"t",
                self._put("identity"),
                b"Q",
                small([first]),
            ),
            *(usual_tuple(shape), self._put("sizes"), usual_tuple(stride), self._put("sizes")),
            *(FALSE, self._known("collections", "OrderedDict"), b")R", self._put("dict")),
            *(b"t", self._put("tuple"), b"R", self._put("tensor")),
        ]
        if draw.trick("usual form altered"):
            at = draw.rng.randrange(len(parts))
            parts[at] = draw.one(b"", b"r\0\0\0\0", b"K\x01", parts[at] + parts[at])
        return b"".join(parts)

    def _put(self, *kind: object) -> bytes:
        slot = max(self._memo, default=-1) + 1
        self._memo[slot] = kind
        return b"r" + struct.pack("<I", slot)

    def _known(self, module: str, name: str) -> bytes:
        kind = ("global", module, name)
        return self._recall(lambda it: it == kind) or (
            f"c{module}\n{name}\n".encode() + self._put(*kind)
        )

    def _word(self, word: str) -> bytes:
        found = self._recall(lambda it: it == ("text", word))
        return found or b"X" + struct.pack("<I", len(word)) + word.encode() + self._put(
            "text", word
        )

    def parameter(self) -> bytes:
        """A Parameter of another tensor."""
        return self.call(
            "torch._utils",
            "_rebuild_parameter",
            self.tensor,
            lambda: self._draw.one(TRUE, FALSE),
            lambda: self.call("collections", "OrderedDict"),
        )

    def _parameter_with_state(self) -> bytes:
        return self.call(
            "torch._utils",
            "_rebuild_parameter_with_state",
            self.tensor,
            lambda: FALSE,
            lambda: self.call("collections", "OrderedDict"),
            self._state,
        )

    def _from_type(self) -> bytes:
        draw = self._draw
        version = draw.one(2, 2, 2, 3)
        return self.call(
            "torch._tensor",
            "_rebuild_from_type_v2",
            lambda: self.named("torch._utils", f"_rebuild_tensor_v{version}"),
            lambda: self.named(
                *draw.one(
                    ("torch", "Tensor"), ("torch", "Tensor"), ("torch.nn.parameter", "Parameter")
                )
            ),
            lambda: MARK + b"".join(self._plain_arguments(version)) + b"t",
            self._state,
        )

    def _from_subclass(self) -> bytes:
        """A tensor of a subclass: a plain one, or one whose attributes are its tensors."""
        draw, kind = self._draw, self._subclass()
        make, given = draw.one(
            ("_rebuild_tensor_v2", lambda: MARK + b"".join(self._plain_arguments(2)) + b"t"),
            (
                "_rebuild_wrapper_subclass",
                lambda: MARK + b"".join(make() for make in self._wrapper_arguments(kind)) + b"t",
            ),
        )
        return self.call(
            "torch._tensor",
            draw.one(*3 * ["_rebuild_from_type_v2"], "_rebuild_from_type"),
            lambda: self.named("torch._utils", make),
            lambda: self.named(*kind),
            given,
            self._inner_tensors if draw.trick("inner tensors", 0.7) else self._state,
        )

    def _subclass(self) -> tuple[str, str]:
        return self._draw.one(*subclasses.NAMES)

    def _inner_tensors(self) -> bytes:
        items = self.text("inner") + self.tensor() + self.text("scale") + self.tensor()
        return b"}" + MARK + items + b"u"

    def _state(self) -> bytes:
        """The attributes that a tensor is given."""
        draw = self._draw
        if draw.trick("state in two parts"):
            return self.tupled(
                self._attributes(), draw.make(lambda: NONE, lambda: b"}", self._attributes)
            )
        return self._attributes()

    def _attributes(self) -> bytes:
        draw, items = self._draw, []
        if draw.trick("state that sets data"):
            items.append(self.text(draw.one("data", "data", "real", "grad")) + self.tensor())
        if draw.trick("state that sets others"):
            usual = ("foo", "requires_grad", "_backward_hooks", "__class__", "shape", "T")
            name = draw.one(*usual, draw.rng.choice(OWN))
            items.append(
                self.text(name)
                + draw.make(lambda: NONE, lambda: TRUE, lambda: self.integer(3), self.tensor)
            )
        if draw.chance(0.5):
            items.append(self.text("tag") + self.integer(1))
        return self._keep(b"}" + MARK + b"".join(items) + b"u", ("attributes",), 0.3)

    def _parameter_class(self, *, new: bool) -> bytes:
        flags = [lambda: self._draw.one(TRUE, FALSE)][: self._draw.one(0, 1, 1)]
        return self.call("torch.nn.parameter", "Parameter", self.tensor, *flags, new=new)

    def _tensor_class(self, name: str, *, new: bool) -> bytes:
        draw = self._draw
        numbers = self._small_tuple
        ways = [lambda: numbers(2), self.plain, lambda: b"](K\x02K\x03e", lambda: self.storage()[0]]
        return self.call("torch", name, draw.rng.choice(ways), new=new)

    def _small_tuple(self, count: int) -> bytes:
        return self.tupled(*(self.integer(self._draw.rng.randrange(1, 4)) for _ in range(count)))

    def _sparse(self) -> bytes:
        return self.call(
            "torch._utils",
            "_rebuild_sparse_tensor",
            lambda: self.call(
                "torch.serialization", "_get_layout", lambda: self.text("torch.sparse_coo")
            ),
            lambda: MARK + self.tensor() + self.tensor() + self._small_tuple(1) + b"t",
        )

    def _sparse_compressed(self) -> bytes:
        layout = self._draw.one("csr", "csc", "bsr", "bsc")
        return self.call(
            "torch._utils",
            "_rebuild_sparse_tensor",
            lambda: self.call(
                "torch.serialization", "_get_layout", lambda: self.text(f"torch.sparse_{layout}")
            ),
            lambda: MARK + b"".join(self.tensor() for _ in "123") + self._small_tuple(2) + b"t",
        )

    def _quantised(self, *, by_channel: bool = False) -> bytes:
        parts = [self.named("torch._utils", "_rebuild_qtensor"), MARK]
        parts += [self._reference("0", "QInt8Storage", 4)]
        self.storages.setdefault("0", ("ByteStorage", 4))
        parts += [self.integer(0), self.tupled(self.integer(4)), self.tupled(self.integer(1))]
        if by_channel:
            scheme = self.named("torch", "per_channel_affine")
            parts.append(self.tupled(scheme, self.plain(), self.plain(), self.integer(0)))
        else:
            scheme = self.named("torch", "per_tensor_affine")
            parts.append(self.tupled(scheme, float_(0.5), self.integer(0)))
        parts.append(FALSE)
        return b"".join([*parts, self.call("collections", "OrderedDict"), b"tR"])

    def _nested(self) -> bytes:
        four = [self.tensor] * 4
        return self.call("torch._utils", "_rebuild_nested_tensor", *four)

    def _meta(self) -> bytes:
        return self.call(
            "torch._utils",
            "_rebuild_meta_tensor_no_storage",
            lambda: self.named("torch", "float32"),
            lambda: self._small_tuple(1),
            lambda: self.tupled(self.integer(1)),
            lambda: FALSE,
        )

    def _wrapper(self, kind: tuple[str, str] = ("torch", "Tensor")) -> bytes:
        return self.call(
            "torch._utils", "_rebuild_wrapper_subclass", *self._wrapper_arguments(kind)
        )

    def _wrapper_arguments(self, kind: tuple[str, str]) -> list[Callable[[], bytes]]:
        return [
            lambda: self.named(*kind),
            lambda: self.named("torch", "float32"),
            lambda: self._small_tuple(1),
            lambda: self.tupled(self.integer(1)),
            lambda: self.integer(0),
            lambda: self.call(
                "torch.serialization", "_get_layout", lambda: self.text("torch.strided")
            ),
            lambda: self.text("cpu"),
            lambda: FALSE,
        ]

    def _of_another_device(self) -> bytes:
        return self.call(
            "torch._utils",
            "_rebuild_device_tensor_from_cpu_tensor",
            self.tensor,
            lambda: self.named("torch", self._draw.rng.choice(DTYPES)),
            lambda: self.text("cpu"),
            lambda: FALSE,
        )

    def _of_numpy(self) -> bytes:
        return self.call(
            "torch._utils",
            "_rebuild_device_tensor_from_numpy",
            self._numpy_array,
            lambda: self.named("torch", self._draw.rng.choice(DTYPES)),
            lambda: self.text("cpu"),
            lambda: FALSE,
        )

    def _built(self, code: bytes) -> bytes:
        """A tensor, perhaps with a state that replaces what it is."""
        draw = self._draw
        if self._depth > 3:
            return code
        if draw.trick("set_ by build", 0.3):
            storage, (_, _, numel) = self.storage()
            first, shape, stride = self._geometry(numel)
            return (
                code
                + self.tupled(storage, self.integer(first), self.sizes(shape), self.sizes(stride))
                + b"b"
            )
        if draw.trick("state by build", 0.3):
            self._depth += 1
            hooks = lambda: self.call("collections", "OrderedDict")  # noqa: E731
            if draw.chance(0.4):
                code += self._state() + b"b"
            elif draw.chance(0.5):
                code += self.tupled(FALSE, NONE, hooks()) + b"b"
            else:
                code += MARK + self.tensor() + NONE + hooks() + FALSE + NONE + b"tb"
            self._depth -= 1
        return code

    def _numpy_array(self) -> bytes:
        code = self.call(
            "numpy._core.multiarray",
            "_reconstruct",
            lambda: self.named("numpy", "ndarray"),
            lambda: self.tupled(self.integer(0)),
            lambda: self._latin(b"b"),
        )
        parts = [MARK, self.integer(1), self._small_tuple(1)[:0] + self.tupled(self.integer(2))]
        parts += [self._numpy_dtype("f4"), FALSE, self._latin(struct.pack("<2f", 1, 2))]
        return code + b"".join(parts) + b"tb"

    def _numpy_dtype(self, kind: str) -> bytes:
        code = self.call("numpy", "dtype", lambda: self.text(kind), lambda: FALSE, lambda: TRUE)
        order = self.text(self._draw.one("<", "<", ">"))
        state = [self.integer(3), order, NONE, NONE, NONE]
        if kind[0] == "U":  # texts of a fixed length say it again
            state += map(self.integer, (4 * int(kind[1:]), 4, 8))
        else:
            state += map(self.integer, (-1, -1, 0))
        return code + MARK + b"".join(state) + b"tb"

    def _latin(self, data: bytes) -> bytes:
        return self.call(
            "_codecs",
            "encode",
            lambda: self.text(data.decode("latin-1")),
            lambda: self.text("latin1"),
        )


def _dtype_of(kind: str) -> str | None:
    known = {"FloatStorage": "float32", "DoubleStorage": "float64", "LongStorage": "int64"}
    return known.get(kind)

"""The allow-list: the globals that describe tensors and plain values, and no others.

Sources: torch 2.13, `torch/_utils.py` (`_rebuild_*`), `torch/storage.py`, and
`torch/_weights_only_unpickler.py` for those that torch itself considers safe. Globals on the
list are understood, never imported or called. Other globals are opaque where no tensor needs them.
"""

import re

# torch's typed storages and the dtype of their elements.
STORAGES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
    "torch.ComplexFloatStorage": "complex64",
    "torch.ComplexDoubleStorage": "complex128",
}
# Bytes without a dtype; numel counts bytes then.
UNTYPED = "torch.storage.UntypedStorage"

# Until torch 0.3: the first four arguments of v2.
TENSOR_V1 = "torch._utils._rebuild_tensor"
TENSOR_V2 = "torch._utils._rebuild_tensor_v2"
TENSOR_V3 = "torch._utils._rebuild_tensor_v3"
PARAMETER = "torch._utils._rebuild_parameter"
PARAMETER_WITH_STATE = "torch._utils._rebuild_parameter_with_state"
# A tensor with attributes of its own: (function, type, its arguments, the attributes).
FROM_TYPE = "torch._tensor._rebuild_from_type_v2"

ATTRIBUTED = frozenset({PARAMETER_WITH_STATE, FROM_TYPE})

# Tensors that are not plain strided ones: known, and refused by name.
OTHER_TENSORS = {
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_qtensor": "a quantised tensor",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a meta tensor without values",
    "torch._utils._rebuild_wrapper_subclass": "a tensor subclass",
    "torch._utils._rebuild_device_tensor_from_numpy": "a tensor of another device",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": "a tensor of another device",
    "torch.nn.parameter.Parameter": "a Parameter as torch 0.3 saved it",
    "torch.Tensor": "a tensor made of numbers",
}
# The attributes whose setting changes a tensor; torch does not save them as attributes.
SETTABLE = frozenset(
    {
        *("data", "grad", "_grad", "grad_dtype", "real", "imag", "requires_grad", "volatile"),
        *("names", "_grad_fn", "_backward_hooks", "_post_accumulate_grad_hooks"),
        *("__dict__", "__class__"),
    }
)
TENSORS = frozenset(
    {
        *(TENSOR_V1, TENSOR_V2, TENSOR_V3, PARAMETER, PARAMETER_WITH_STATE, FROM_TYPE),
        *OTHER_TENSORS,
    }
)
_OTHER_STORAGES = ("QInt8", "QInt32", "QUInt8", "QUInt4x2", "QUInt2x4")

_DTYPES = (
    "float64", "float32", "float16", "bfloat16", "complex128", "complex64", "complex32",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
    "float4_e2m1fn_x2", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8",
    "bool", "qint8", "qint32", "quint8", "quint4x2", "quint2x4", "bits8", "bits16", "bits1x8",
    "bits2x4", "bits4x2", *(f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)),
)  # fmt: skip

_PLAIN = (
    "collections.OrderedDict",
    "collections.Counter",
    "builtins.set",
    "builtins.frozenset",
    "builtins.bytearray",
    "builtins.complex",
    "_codecs.encode",
    "torch.Size",
    "torch.device",
    "torch.serialization._get_layout",
    "torch.per_tensor_affine",
    "torch.per_tensor_symmetric",
    "torch.per_channel_affine",
    "torch.per_channel_symmetric",
    "torch.per_channel_affine_float_qparams",
)

# Values that trainers save beside the tensors. Each constructor only makes a value out of values;
# one that calls, looks up attributes or imports must never be added.
DICTS = frozenset(  # of a class of their own
    {
        "collections.defaultdict",
        "lightning.fabric.utilities.data.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict",
        "pytorch_lightning.utilities.parsing.AttributeDict",
    }
)
# The factories of a defaultdict, which names them; they are never called.
FACTORIES = frozenset({f"builtins.{name}" for name in ("dict", "list", "int", "float")})
NAMESPACE = "argparse.Namespace"
# The classes whose objects hold what `__new__` gets; other objects begin empty.
BY_NEWOBJ = frozenset({"torch.Size", "torch.Tensor", "torch.nn.parameter.Parameter"})
# numpy 2 calls `core` `_core`.
_NUMPY = ("numpy.core", "numpy._core")
NUMPY_DTYPE = "numpy.dtype"
NUMPY_SCALARS = frozenset({f"{core}.multiarray.scalar" for core in _NUMPY})
NUMPY_ARRAYS = frozenset({f"{core}.multiarray._reconstruct" for core in _NUMPY})
NUMPY_BUFFERS = frozenset({f"{core}.numeric._frombuffer" for core in _NUMPY})  # of protocol 5
# Python 3.13 has pathlib's classes in `_local`.
PATHS = frozenset(
    {
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
    }
)
TIMES = frozenset(
    {f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")}
)
TRAINERS = frozenset(
    {
        *(NAMESPACE, NUMPY_DTYPE, "numpy.ndarray", "builtins.bytes"),
        *(*DICTS, *FACTORIES, *NUMPY_SCALARS, *NUMPY_ARRAYS, *NUMPY_BUFFERS, *PATHS, *TIMES),
    }
)

ALLOWED = frozenset(
    {
        *STORAGES,
        UNTYPED,
        *TENSORS,
        *(f"torch.{name}Storage" for name in _OTHER_STORAGES),
        *(f"torch.{name}" for name in _DTYPES),
        *_PLAIN,
        *TRAINERS,
    }
)

# Beside those on the allow-list: globals that make a value out of values, whatever they are given.
INERT = ALLOWED | {
    *("collections.deque", "types.SimpleNamespace", "uuid.UUID", "decimal.Decimal"),
    *("fractions.Fraction", "builtins.range", "builtins.slice", "builtins.object"),
}
# What torch refuses with weights_only, though ckpt understands it.
UNOPENED = TRAINERS | {"builtins.frozenset"}
# Tensors and storages of torch that the allow-list does not hold; never opaque.
_OF_TENSORS = re.compile(r"torch\.(.*\.)?(\w*Tensor|\w*Storage|\w*_rebuild\w*)")
_OWN_SUBCLASS = re.compile(r"torch\.(.*\.)?\w*Tensor")


def can_be_opaque(name: str) -> bool:
    """Whether an object of this global is certainly not a tensor that torch would read."""
    return name not in ALLOWED and not _OF_TENSORS.fullmatch(name)


def is_own_subclass(name: str) -> bool:
    """Whether it is a class of torch for tensors that are made of others, such as DTensor."""
    return name not in ALLOWED and _OWN_SUBCLASS.fullmatch(name) is not None


def runs_code(name: str) -> bool:
    """Whether unpickling may run code through this global."""
    return name not in INERT


def torch_refuses(name: str) -> bool:
    """Whether `torch.load` with weights_only refuses this global unless told to accept it."""
    return name in UNOPENED or name not in ALLOWED

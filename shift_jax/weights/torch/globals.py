"""What names in a PyTorch pickle stand for: a fixed table that imports nothing.

A pickle names classes and functions and asks to call them. Each name becomes a `Global`, a mere
label. For the names in the table, the label also says what a call returns, which is always one of
the inert values below. For names of model classes, the label can make an `Instance`, without
arguments, that only stores what the file says. All other names are refused.
"""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import ml_dtypes
import numpy as np

# Modules of Python 2 that are not in `sys.stdlib_module_names`.
_PYTHON2_MODULES = {"__builtin__", "copy_reg", "commands", "exceptions", "popen2", "os2", "thread"}
# A model may be in a module of any name except these.
_NOT_MODELS = sys.stdlib_module_names | _PYTHON2_MODULES | {"numpy", "torch"}
_MODEL_PARTS_OF_TORCH = ("torch.nn.", "torch.optim.")
_SAFE_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


class RefusedGlobalError(ValueError):
    """The pickle asks for a name, or for a call of it, that no weight file needs."""

    def __init__(self, name: str):
        super().__init__(f"it asks for {name!r}")
        self.name = name


@dataclass(frozen=True, eq=False, repr=False)
class Global:
    """A name in the pickle: a label, never the thing itself.

    Attributes:
      name: as in the file, such as `torch._utils._rebuild_tensor_v2`.
      call: returns what a call gives, from its arguments; None refuses calls.
      is_class: whether the label can make an `Instance`.
      dtype: of the elements, for a storage class or a torch dtype.
    """

    name: str
    call: Callable[..., Any] | None = None
    is_class: bool = False
    dtype: np.dtype | None = None


@dataclass(eq=False, repr=False)
class Instance:
    """Stands for an object of an unknown class; it only stores the attributes."""

    cls: Global
    state: dict = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class Storage:
    """The part `[start, start + numel)` of the elements that the file stores under `key`."""

    dtype: np.dtype
    key: str
    whole_numel: int
    start: int
    numel: int


@dataclass(frozen=True, eq=False, repr=False)
class Tensor:
    """A view of a storage as the file describes it, not checked yet."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any
    dtype: np.dtype | None = None


@dataclass(frozen=True, eq=False, repr=False)
class OtherTensor:
    """A tensor of a kind that cannot be read, such as a quantized one."""

    kind: str


@dataclass(eq=False, repr=False)
class NumpyDtype:
    """The dtype of a numpy scalar beside the tensors."""

    code: str
    order: Literal["<", ">"] = "<"


def find_global(module: str, name: str) -> Global:
    """Returns the label for a name in a pickle; raises `RefusedGlobalError` for an unknown name."""
    full_name = f"{module}.{name}"
    modern = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
    known = _TABLE.get(f"{modern}.{name}")
    if known is not None:
        return Global(full_name, **known)
    in_torch = module.startswith(_MODEL_PARTS_OF_TORCH)
    if (not in_torch and module.split(".")[0] in _NOT_MODELS) or len(full_name) > 200:
        raise RefusedGlobalError(full_name[:200])
    if not (_SAFE_NAME.fullmatch(module) and _SAFE_NAME.fullmatch(name)):
        raise RefusedGlobalError(full_name)
    return Global(full_name, is_class=True)


def make_instance(cls: Any) -> Instance:
    """Returns an object of a model's class, without attributes."""
    if isinstance(cls, Global) and cls.is_class:
        return Instance(cls)
    if isinstance(cls, Global):
        raise RefusedGlobalError(cls.name)
    raise ValueError("it makes an object of something that is not a class")


def _reconstructor(cls: Any, base: Any, state: Any = None) -> Instance:
    # Protocols 0 and 1 make objects this way; only subclasses of builtins have a base.
    return make_instance(cls)


def _tensor(storage, offset, shape, strides, requires_grad=None, hooks=None, metadata=None):
    if metadata:  # Readers of the elements would have to conjugate or negate them.
        return OtherTensor("lazily conjugated or negated")
    return Tensor(storage, offset, shape, strides)


def _tensor_v3(storage, offset, shape, strides, requires_grad, hooks, dtype, metadata=None):
    if not isinstance(dtype, Global) or dtype.dtype is None or metadata:
        return OtherTensor("of an unknown type")
    return Tensor(storage, offset, shape, strides, dtype.dtype)


def _tensor_of_type(function, cls, args, state):
    # Only these: their cost does not depend on the arguments, which the caller has not counted.
    is_known = isinstance(function, Global) and "torch._utils._rebuild_" in function.name
    if not is_known or function.call is None:
        raise ValueError("it makes a tensor with something that makes no tensors")
    return function.call(*args)


def _other(kind: str) -> Callable[..., OtherTensor]:
    return lambda *args: OtherTensor(kind)


def _first(value: Any, *rest: Any) -> Any:
    return value


def _size(dims: Any = ()) -> tuple:
    return tuple(dims)


def _dict(pairs: Any = ()) -> dict:
    if isinstance(pairs, dict):
        return pairs
    if isinstance(pairs, Global):  # A `defaultdict` calls it for missing keys.
        return {}
    return {check_key(key): value for key, value in pairs}


def check_key(key: Any) -> Any:
    """Returns `key` if it can be hashed quickly; nested tuples could exhaust the C stack."""
    plain = str | bytes | int | float | None
    if isinstance(key, plain | Global | Instance | Tensor):
        return key
    if isinstance(key, tuple) and all(isinstance(part, plain) for part in key):
        return key
    raise ValueError(f"a dict has a key of type {type(key).__name__}")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")  # Python 3 writes bytes this way in protocol 2.


def _numpy_dtype(code: str, *flags: Any) -> NumpyDtype:
    return NumpyDtype(code)


def _numpy_scalar(dtype: NumpyDtype, data: bytes | str) -> bool | int | float:
    if dtype.code not in {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}:
        raise ValueError("a numpy scalar has an unknown type")
    data = data.encode("latin1") if isinstance(data, str) else data
    (number,) = np.frombuffer(data, np.dtype(dtype.code).newbyteorder(dtype.order)).tolist()
    return number


# Dtypes of `torch.TYPEStorage` and `torch.cuda.TYPEStorage`.
_STORAGES = {
    "Double": np.float64,
    "Float": np.float32,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
    "ComplexFloat": np.complex64,
    "ComplexDouble": np.complex128,
    # Quantized tensors are refused by name, which needs their storages to be known.
    "QInt8": np.int8,
    "QUInt8": np.uint8,
    "QInt32": np.int32,
    "QUInt4x2": np.uint8,
    "QUInt2x4": np.uint8,
}
_DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
_DTYPES += ["uint16", "uint32", "uint64", "complex64", "complex128", "bfloat16"]
_DTYPES += ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"]

_TABLE: dict[str, dict[str, Any]] = {
    "torch._utils._rebuild_tensor": {"call": _tensor},
    "torch._utils._rebuild_tensor_v2": {"call": _tensor},
    "torch._utils._rebuild_tensor_v3": {"call": _tensor_v3},
    "torch._tensor._rebuild_from_type_v2": {"call": _tensor_of_type},
    "torch._utils._rebuild_parameter": {"call": _first},
    "torch._utils._rebuild_parameter_with_state": {"call": _first},
    "torch.nn.parameter.Parameter": {"call": _first},
    "torch.nn.parameter.Buffer": {"call": _first},
    "torch.autograd.variable.Variable": {"call": _first},
    "torch.Tensor": {},
    "torch._utils._rebuild_qtensor": {"call": _other("quantized")},
    "torch._utils._rebuild_sparse_tensor": {"call": _other("sparse")},
    "torch._utils._rebuild_nested_tensor": {"call": _other("nested")},
    "torch._utils._rebuild_meta_tensor_no_storage": {"call": _other("without data (meta)")},
    "torch.per_tensor_affine": {},
    "torch.per_channel_affine": {},
    "torch.serialization._get_layout": {"call": _first},
    "torch.Size": {"call": _size},
    "torch.device": {"call": lambda *args: Instance(Global("torch.device"))},
    "torch.nn.backends.thnn._get_thnn_function_backend": {
        "call": lambda: Instance(Global("torch.nn.backends.thnn.THNNFunctionBackend"))
    },
    "torch.storage.UntypedStorage": {"dtype": np.dtype(np.uint8)},
    "torch.storage._UntypedStorage": {"dtype": np.dtype(np.uint8)},
    "collections.OrderedDict": {"call": _dict},
    "collections.Counter": {"call": _dict},
    "collections.defaultdict": {"call": _dict},
    "copyreg._reconstructor": {"call": _reconstructor},
    "builtins.set": {"call": lambda items=(): items},
    "builtins.frozenset": {"call": lambda items=(): items},
    **{f"builtins.{name}": {} for name in ("object", "dict", "list", "int", "long", "float")},
    "argparse.Namespace": {"is_class": True},
    "_codecs.encode": {"call": _encode},
    "numpy.dtype": {"call": _numpy_dtype},
    "numpy.ndarray": {},
}
for _core in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _TABLE[f"{_core}.scalar"] = {"call": _numpy_scalar}
    # Arrays beside the tensors are ignored; they are no reason to refuse the file.
    _TABLE[f"{_core}._reconstruct"] = {"call": lambda *args: Instance(Global("numpy.ndarray"))}
for _name, _type in _STORAGES.items():
    for _module in ("torch", "torch.cuda"):
        _TABLE[f"{_module}.{_name}Storage"] = {"dtype": np.dtype(_type)}
for _name in _DTYPES:
    _TABLE[f"torch.{_name}"] = {"dtype": np.dtype(getattr(ml_dtypes, _name, _name))}

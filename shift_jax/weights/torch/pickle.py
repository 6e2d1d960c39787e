"""Reads a pickle without running it, by a stack machine for its opcodes.

Python's unpickler calls whatever a pickle names. Here `pickletools` only splits the pickle into
opcodes, and the machine builds dicts, lists, numbers, strings and the inert values of `globals`. No
step imports anything, looks up an attribute by a name from the file, or calls anything but the
functions of that table.
"""

import io
import pickletools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from shift_jax.weights.torch.globals import (
    Global,
    Instance,
    NumpyDtype,
    OtherTensor,
    RefusedGlobalError,
    Storage,
    Tensor,
    check_key,
    find_global,
    make_instance,
)

# Tens of times as much as the largest models need; the memory stays well below 1 GiB.
MAX_PICKLE_BYTES = 64 << 20
_MAX_STEPS = 1_000_000


def load_inert(stream: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    """Returns the object that the next pickle in `stream` describes, and the storages it mentions.

    All are inert values; the storages are whole and by their keys. The stream is left at the end of
    the pickle.

    Raises:
      RefusedGlobalError: the pickle asks for something that no weight file needs.
      ValueError: the pickle is damaged, too large, or not from `torch.save`.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            machine.spend(1)
            if opcode.name == "STOP":
                return machine.pop(), machine.storages
            action = _ACTIONS.get(opcode.name)
            if action is None:
                raise ValueError(
                    f"it holds the opcode {opcode.name}, which torch.save never writes"
                )
            action(machine, argument)
    except (
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise ValueError(f"its pickle is damaged: {type(error).__name__}") from error
    raise ValueError("its pickle does not end")


class _Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(self):
        self._stack: list[Any] = []
        self._marks: list[int] = []
        # A dict, because a list would need as many entries as the file claims.
        self._memo: dict[int, Any] = {}
        self._steps = 0
        self.storages: dict[str, Storage] = {}

    def spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > _MAX_STEPS:
            raise ValueError(f"its pickle takes more than {_MAX_STEPS} steps")

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise ValueError("its pickle pops from an empty stack")
        return self._stack.pop()

    def top(self) -> Any:
        value = self.pop()
        self.push(value)
        return value

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def pop_mark(self) -> list[Any]:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def put(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self.top()

    def get(self, index: int) -> None:
        self.push(self._memo[index])

    def push_tuple(self, length: int) -> None:
        values = [self.pop() for _ in range(length)]
        self.push(tuple(reversed(values)))

    def append(self, values: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Instance):
            raise ValueError("it appends to something that is not a list")

    def set_items(self, values: list[Any]) -> None:
        target = self.top()
        items = _pairs(values)
        if isinstance(target, dict):
            target.update(items)
        elif not isinstance(target, Instance):
            raise ValueError("it sets items of something that is not a dict")

    def find(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("it asks for a name that is not a string")
        self.push(find_global(module, name))

    def find_on_stack(self) -> None:
        name = self.pop()
        self.find(self.pop(), name)

    def call(self) -> None:
        args, function = self.pop(), self.pop()
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise ValueError("it calls something that is not a function")
        if function.call is None:
            raise RefusedGlobalError(function.name)
        # A call may copy its arguments; if copies were free, a short pickle could fill the memory.
        self.spend(sum(len(arg) for arg in args if isinstance(arg, str | bytes | list | tuple)))
        self.push(function.call(*args))

    def make(self, cls: Any, *args: Any) -> None:
        """Pushes an object of a model's class; all `args` must be empty."""
        if any(args) and isinstance(cls, Global):
            raise RefusedGlobalError(cls.name)
        self.push(make_instance(cls))

    def make_from_stack(self, with_names: bool) -> None:
        names = self.pop() if with_names else {}
        args = self.pop()
        self.make(self.pop(), args, names)

    def make_from_mark(self) -> None:
        cls, *args = self.pop_mark()
        self.make(cls, args)

    def make_named(self, name: str) -> None:
        args = self.pop_mark()
        self.make(find_global(*_split_name(name)), args)

    def build(self) -> None:
        """Sets the attributes of an object; the real object could run its own code here."""
        state, target = self.pop(), self.top()
        if isinstance(target, Instance):
            # With __slots__ the state is a pair, whose second part never holds tensors of modules.
            state = state[0] if isinstance(state, tuple) and len(state) == 2 else state
            target.state = state if isinstance(state, dict) else {}
        elif isinstance(target, NumpyDtype):
            target.order = ">" if state[1] == ">" else "<"
        elif not isinstance(target, dict | Tensor | OtherTensor):
            # Those types sometimes have attributes (`_metadata`, `requires_grad`) to ignore.
            raise ValueError("it sets attributes of something that has none")

    def load_persistent(self) -> None:
        """Pushes what torch stores beside the pickle: `('storage', ...)` or `('module', ...)`."""
        match self.pop():
            case ("storage", Global(dtype=dtype), str(key), _, int(numel), *view) if dtype:
                whole = Storage(dtype, key, numel, 0, numel)
                known = self.storages.setdefault(key, whole)
                if numel < 0 or (known.dtype, known.whole_numel) != (dtype, numel):
                    raise ValueError(f"it describes storage {key[:100]!r} in two ways")
                if view and view[0] is not None:
                    _, start, length = view[0]  # The first is a key that nothing else has.
                    if not isinstance(start, int) or not isinstance(length, int):
                        raise ValueError("it describes a storage in an unknown way")
                    whole = replace(whole, start=start, numel=length)
                self.push(whole)
            case ("module", Global(is_class=True) as cls, *_):
                self.push(cls)  # Its source code follows and is ignored.
            case (_, Global(name=name), *_):
                raise RefusedGlobalError(name)
            case _:
                raise ValueError("it describes a storage in an unknown way")


def _pairs(values: list[Any]) -> dict[Any, Any]:
    keys = map(check_key, values[::2])
    return dict(zip(keys, values[1::2], strict=True))


def _split_name(name: str) -> tuple[str, str]:
    """Splits pickletools' argument for two lines into the module and the name inside it."""
    module, _, within = name.partition(" ")
    return module, within


_Action = Callable[[_Machine, Any], Any]

_ACTIONS: dict[str, _Action] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "MARK": lambda m, a: m.mark(),
    "POP": lambda m, a: m.pop(),
    "POP_MARK": lambda m, a: m.pop_mark(),
    "NONE": lambda m, a: m.push(None),
    "NEWTRUE": lambda m, a: m.push(True),
    "NEWFALSE": lambda m, a: m.push(False),
    "EMPTY_LIST": lambda m, a: m.push([]),
    "EMPTY_DICT": lambda m, a: m.push({}),
    "EMPTY_TUPLE": lambda m, a: m.push(()),
    "EMPTY_SET": lambda m, a: m.push([]),  # Sets are kept as lists: no hashing.
    "LIST": lambda m, a: m.push(m.pop_mark()),
    "DICT": lambda m, a: m.push(_pairs(m.pop_mark())),
    "TUPLE": lambda m, a: m.push(tuple(m.pop_mark())),
    "TUPLE1": lambda m, a: m.push_tuple(1),
    "TUPLE2": lambda m, a: m.push_tuple(2),
    "TUPLE3": lambda m, a: m.push_tuple(3),
    "FROZENSET": lambda m, a: m.push(m.pop_mark()),
    "APPEND": lambda m, a: m.append([m.pop()]),
    "APPENDS": lambda m, a: m.append(m.pop_mark()),
    "ADDITEMS": lambda m, a: m.append(m.pop_mark()),
    "SETITEM": lambda m, a: m.set_items([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, a: m.set_items(m.pop_mark()),
    "MEMOIZE": lambda m, a: m.put(None),
    "GLOBAL": lambda m, a: m.find(*_split_name(a)),
    "STACK_GLOBAL": lambda m, a: m.find_on_stack(),
    "REDUCE": lambda m, a: m.call(),
    "NEWOBJ": lambda m, a: m.make_from_stack(with_names=False),
    "NEWOBJ_EX": lambda m, a: m.make_from_stack(with_names=True),
    "OBJ": lambda m, a: m.make_from_mark(),
    "INST": lambda m, a: m.make_named(a),
    "BUILD": lambda m, a: m.build(),
    "BINPERSID": lambda m, a: m.load_persistent(),
}
_ACTIONS |= dict.fromkeys(["PUT", "BINPUT", "LONG_BINPUT"], lambda m, a: m.put(a))
_ACTIONS |= dict.fromkeys(["GET", "BINGET", "LONG_BINGET"], lambda m, a: m.get(a))
for _type in ("INT", "LONG", "FLOAT", "STRING", "UNICODE"):
    _ACTIONS[_type] = lambda m, a: m.push(a)
for _type in ("INT", "INT1", "INT2", "FLOAT", "STRING", "UNICODE", "UNICODE8", "BYTES", "BYTES8"):
    _ACTIONS[f"BIN{_type}"] = lambda m, a: m.push(a)
for _type in ("LONG1", "LONG4", "SHORT_BINSTRING", "SHORT_BINUNICODE", "SHORT_BINBYTES"):
    _ACTIONS[_type] = lambda m, a: m.push(a)

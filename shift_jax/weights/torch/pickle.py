"""Reads a pickle without running any of it: a stack machine of our own for its opcodes.

Python's unpickler calls what a pickle names. Here `pickletools` splits the pickle into opcodes,
which it does without acting on them, and the machine builds dicts, lists, numbers, strings and
the inert values of `globals`: there is no step that imports, looks up an attribute by a
name from the file, or calls anything but the functions of that table.
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

# Tens of times what the largest models need, in memory well below 1 GiB.
MAX_PICKLE_BYTES = 64 << 20
_MAX_STEPS = 1_000_000


def load_inert(stream: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    """Returns what the pickle at the head of `stream` describes, and the storages it mentions.

    All as inert values; the storages are by their keys and whole. The stream is left behind the
    pickle.

    Raises:
      RefusedGlobalError: The pickle asks for something that no weight file needs.
      ValueError: The pickle is damaged, too large, or not one that `torch.save` writes.
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
        # A dict: a list would have as many entries as the file claims.
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
            raise ValueError("its pickle takes more from its stack than is there")
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
            raise ValueError("it appends to something that is no list")

    def set_items(self, values: list[Any]) -> None:
        target = self.top()
        items = _pairs(values)
        if isinstance(target, dict):
            target.update(items)
        elif not isinstance(target, Instance):
            raise ValueError("it sets items of something that is no dict")

    def find(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("it asks for a name that is no string")
        self.push(find_global(module, name))

    def find_on_stack(self) -> None:
        name = self.pop()
        self.find(self.pop(), name)

    def call(self) -> None:
        args, function = self.pop(), self.pop()
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise ValueError("it calls something that is no function")
        if function.call is None:
            raise RefusedGlobalError(function.name)
        # A call may copy what it is given; without this, short pickles could fill the memory.
        self.spend(sum(len(arg) for arg in args if isinstance(arg, str | bytes | list | tuple)))
        self.push(function.call(*args))

    def make(self, cls: Any, *args: Any) -> None:
        """Makes an object of a class of models; all `args` must be empty."""
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
        """Gives the attributes of an object; the real object might run code of its own here."""
        state, target = self.pop(), self.top()
        if isinstance(target, Instance):
            # With __slots__ the state is a pair, and modules keep nothing of ours in the second.
            state = state[0] if isinstance(state, tuple) and len(state) == 2 else state
            target.state = state if isinstance(state, dict) else {}
        elif isinstance(target, NumpyDtype):
            target.order = ">" if state[1] == ">" else "<"
        elif not isinstance(target, dict | Tensor | OtherTensor):
            # Those have attributes at times (`_metadata`, `requires_grad`), which nobody needs.
            raise ValueError("it sets attributes of something that has none")

    def load_persistent(self) -> None:
        """Gives what torch stores beside the pickle: `('storage', ...)` or `('module', ...)`."""
        match self.pop():
            case ("storage", Global(dtype=dtype), str(key), _, int(numel), *view) if dtype:
                whole = Storage(dtype, key, numel, 0, numel)
                known = self.storages.setdefault(key, whole)
                if numel < 0 or (known.dtype, known.whole_numel) != (dtype, numel):
                    raise ValueError(f"it describes storage {key[:100]!r} in two ways")
                if view and view[0] is not None:
                    _, start, length = view[0]  # The first is of no use: nothing has this key.
                    if not isinstance(start, int) or not isinstance(length, int):
                        raise ValueError("it describes a storage in an unknown way")
                    whole = replace(whole, start=start, numel=length)
                self.push(whole)
            case ("module", Global(is_class=True) as cls, *_):
                self.push(cls)  # With its source code, which is ignored.
            case (_, Global(name=name), *_):
                raise RefusedGlobalError(name)
            case _:
                raise ValueError("it describes a storage in an unknown way")


def _pairs(values: list[Any]) -> dict[Any, Any]:
    keys = map(check_key, values[::2])
    return dict(zip(keys, values[1::2], strict=True))


def _split_name(name: str) -> tuple[str, str]:
    """Splits what pickletools gives for two lines: the module and the name within."""
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

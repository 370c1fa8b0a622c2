"""A second device without one: tensors that claim to be on it and compute on the CPU.

A tensor of `Elsewhere` is a CPU tensor that says otherwise. While a `SecondDevice` is entered,
every call in Python goes through it: what is made there or moved there becomes `Elsewhere`; a call
with tensors of both places is refused, as a device does; what makes the host wait for a value is
noted, and within `unread` refused.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import torch
from graph_double import waits
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("cuda", 0)
CPU = torch.device("cpu")
# What torch.cuda says of the machine.
MACHINE = {"is_available": True, "device_count": 1, "get_device_capability": (9, 0)}
# Reads of an attribute, which have no place to be wrong.
ATTRIBUTES = "__get__"
# Calls that a tensor of the other place may come to: it is taken over, or only looked at.
CROSSING = {
    Tensor.copy_, Tensor.__repr__, Tensor.__format__, Tensor.as_subclass, Tensor.new_tensor,
    Tensor.type, Tensor.size, Tensor.dim, Tensor.numel, Tensor.expand_as, Tensor.view_as,
    Tensor.reshape_as, Tensor.type_as,
}  # fmt: skip


class Mixed(RuntimeError):
    """What a device says of tensors of two places."""


class Read(RuntimeError):
    """The host waited for a value where it may not."""


class Elsewhere(Tensor):
    """A tensor that says it is on the second device."""


def is_there(tensor: Tensor) -> bool:
    """Whether a tensor is on the second device."""
    return isinstance(tensor, Elsewhere) or bool(vars(tensor).get("there", False))


class _Kernels(TorchDispatchMode):
    """Notes the kernels that make the host wait."""

    def __init__(self, place: "SecondDevice") -> None:
        super().__init__()
        self.place = place

    def __torch_dispatch__(
        self, kernel: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if waits(kernel, args):
            self.place.note(str(kernel))
        return kernel(*args, **(kwargs or {}))


class SecondDevice(TorchFunctionMode):
    """A machine with one CUDA device, while it is entered.

    Attributes:
        reads: what made the host wait, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self._unread = self._sends = False
        self._kernels = _Kernels(self)

    @contextmanager
    def unread(self, *, sends: bool = False) -> Iterator[None]:
        """Refuse in the block what makes the host wait, and, unless it `sends`, what it sends."""
        before = self._unread, self._sends
        self._unread, self._sends = True, sends
        try:
            yield
        finally:
            self._unread, self._sends = before

    def put(self, tensor: Tensor) -> Tensor:
        """A copy of a CPU tensor there."""
        with torch._C.DisableTorchFunction():
            return tensor.detach().clone().as_subclass(Elsewhere)

    def note(self, what: str) -> None:
        """The host waits."""
        if self._unread:
            raise Read(f"{what} makes the host wait for a value")
        self.reads.append(what)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        there = [x for x in tensors if is_there(x)]
        name = getattr(func, "__name__", str(func))
        if there and name == ATTRIBUTES:
            return self._attribute(func, args)
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self._to(func, *args, **kwargs)
        if func is Tensor.register_post_accumulate_grad_hook:
            args = (args[0], self._within(args[1]))
        if func is torch._has_compatible_shallow_copy_type:  # a module that moves asks this
            return is_there(args[0]) == is_there(args[1])
        if func in (Tensor.numpy, Tensor.__array__) and there:
            raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu()")
        if func is Tensor.tolist and there:
            self.note("tolist")
        asked = kwargs.get("device")
        if asked is not None:
            kwargs["device"] = CPU
        if there and func not in CROSSING:
            self._refuse_mixed(name, tensors)
        with torch._C.DisableTorchFunction():
            if not there:
                found = func(*args, **kwargs)
            else:
                with self._kernels:
                    found = func(*args, **kwargs)
        goes = bool(there) if asked is None else torch.device(asked).type == DEVICE.type
        if func is Tensor.copy_ and not isinstance(args[0], Elsewhere) and there:
            self.note("a copy to the CPU")
            goes = False
        if isinstance(found, torch.Size):  # which would come out as a plain tuple
            return found
        return tree_map(lambda x: self._placed(x, goes), found)

    def _within(self, hook: Any) -> Any:
        """A hook with the device entered: the backward pass calls it from outside."""

        def called(leaf: Tensor) -> None:
            with torch._C._EnableTorchFunction():
                TorchFunctionMode.__enter__(self)
                try:
                    hook(leaf)
                finally:
                    TorchFunctionMode.__exit__(self, None, None, None)

        return called

    def _placed(self, x: Any, there: bool) -> Any:
        """A result that says where it is; one that was an argument stays itself."""
        if not isinstance(x, Tensor) or is_there(x) == there:
            return x
        if x.layout is not torch.strided:  # which has no subclasses
            vars(x)["there"] = there
            return x
        with torch._C.DisableTorchFunction():
            return x.as_subclass(Elsewhere if there else Tensor)  # type: ignore[arg-type]

    def _attribute(self, func: Any, args: tuple[Any, ...]) -> Any:
        getters = {Tensor.device.__get__: DEVICE, Tensor.is_cuda.__get__: True}  # type: ignore[attr-defined]
        getters[Tensor.is_cpu.__get__] = False  # type: ignore[attr-defined]
        if func in getters:
            return getters[func]
        with torch._C.DisableTorchFunction():
            found = func(*args)
        return self._placed(found, True)

    def _refuse_mixed(self, name: str, tensors: list[Tensor]) -> None:
        """A CPU tensor is taken as a number where it has no dimensions, and not by products."""
        for x in tensors:
            products = name in ("matmul", "__matmul__", "mm", "bmm", "baddbmm", "addmm")
            if not is_there(x) and (x.dim() > 0 or products):
                raise Mixed(f"{name} got tensors on cuda:0 and on cpu")

    def _to(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        device, dtype = kwargs.get("device"), kwargs.get("dtype")
        device = {Tensor.cpu: CPU, Tensor.cuda: DEVICE}.get(func, device)
        for x in args:
            if isinstance(x, Tensor):
                device, dtype = (DEVICE if isinstance(x, Elsewhere) else CPU), x.dtype
            elif isinstance(x, torch.dtype):
                dtype = x
            elif isinstance(x, (str, torch.device)):
                device = x
        was = isinstance(tensor, Elsewhere)
        there = was if device is None else torch.device(device).type == DEVICE.type
        with torch._C.DisableTorchFunction():
            found = tensor.to(tensor.dtype if dtype is None else dtype)
            if there != was:
                found = found.clone() if found is tensor else found
        if was and not there:
            self.note("a copy to the CPU")
        elif there and not was and self._unread and not self._sends:
            self.note("a copy from the CPU")
        return self._placed(found, there)  # type: ignore[no-any-return]

    def __enter__(self) -> "SecondDevice":
        self._before = {name: getattr(torch.cuda, name) for name in MACHINE}
        for name, answer in MACHINE.items():
            setattr(torch.cuda, name, lambda *_, answer=answer: answer)
        return super().__enter__()  # type: ignore[no-any-return]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        for name, before in self._before.items():
            setattr(torch.cuda, name, before)


def moved(given: Any, place: SecondDevice) -> Any:
    """The same value with every tensor in it there: through tuples, dicts, dataclasses."""
    if isinstance(given, Tensor):
        return place.put(given)
    if isinstance(given, tuple):
        parts = [moved(x, place) for x in given]
        return type(given)(*parts) if hasattr(given, "_fields") else tuple(parts)
    if isinstance(given, list):
        return [moved(x, place) for x in given]
    if isinstance(given, dict):
        return {name: moved(x, place) for name, x in given.items()}
    if dataclasses.is_dataclass(given) and not isinstance(given, type):
        made = object.__new__(type(given))
        for field in dataclasses.fields(given):
            object.__setattr__(made, field.name, moved(getattr(given, field.name), place))
        return made
    return given


def back(found: Any) -> list[Any]:
    """The tensors and numbers of an answer, on the CPU, in order."""
    if isinstance(found, Tensor):
        with torch._C.DisableTorchFunction():
            return [found.as_subclass(Tensor)]
    if isinstance(found, (tuple, list)):
        return [x for part in found for x in back(part)]
    if isinstance(found, dict):
        return [x for part in found.values() for x in back(part)]
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        return [x for f in dataclasses.fields(found) for x in back(getattr(found, f.name))]
    return [found] if isinstance(found, (int, float, bool, np.ndarray)) else []


def places(found: Any) -> set[bool]:
    """Whether the tensors of an answer are there."""
    if isinstance(found, Tensor):
        return {isinstance(found, Elsewhere)}
    if isinstance(found, dict):
        return set().union(*(places(x) for x in found.values()))
    if isinstance(found, (tuple, list)):
        return set().union(*(places(x) for x in found))
    return set()

"""One step on tensors that torch itself says are on a GPU: FakeTensorMode, which computes nothing.

Its kernels know their devices and shapes alone. On a build without CUDA, indexing and writing into
a part of a tensor do not work there; reading is done here kernel by kernel, and problems that write
(ReLU, completion, the symmetric ensemble, steps in place) are left to test_second_device.py.
"""

import dataclasses
from typing import Any

import pytest
import torch
from test_capture import PROBLEMS, method, prepared
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.overrides import TorchFunctionMode

import loraone_theory as lt
from loraone_theory.core import eigen
from loraone_theory.dynamics import capture, steppers
from loraone_theory.methods.rules import Rule, gd

WRITING = {"relu", "relu population", "sensing, symmetric", "sensing, completion"}


class Reading(TorchFunctionMode):
    """M[...] by the kernels that torch makes of it."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.__getitem__:
            return self._read(*args)
        return func(*args, **(kwargs or {}))

    def _read(self, M: Tensor, at: Any) -> Tensor:
        parts = list(at) if isinstance(at, tuple) else [at]
        for i, part in enumerate(parts):
            if part is Ellipsis:
                used = sum(p is not None and p is not Ellipsis for p in parts)
                parts[i : i + 1] = [slice(None)] * (M.ndim - used)
                break
        dim = 0
        for part in parts:
            if part is None:
                M, dim = M.unsqueeze(dim), dim + 1
            elif isinstance(part, int):
                M = M.select(dim, part)
            else:
                start, stop, step = part.indices(M.shape[dim])
                M, dim = torch.ops.aten.slice.Tensor(M, dim, start, stop, step), dim + 1
        return M


def fake(given: Any, memo: dict[int, Any]) -> Any:
    """The same value with every tensor in it on the GPU, of the same shape and layout."""
    if id(given) in memo:
        return memo[id(given)]
    made = given
    if isinstance(given, Tensor):
        made = torch.empty_strided(given.shape, given.stride(), dtype=given.dtype, device="cuda")
    elif isinstance(given, tuple) and not isinstance(given, torch.Size):
        parts = [fake(x, memo) for x in given]
        made = type(given)(*parts) if hasattr(given, "_fields") else tuple(parts)
    elif isinstance(given, dict):
        made = {name: fake(x, memo) for name, x in given.items()}
    elif dataclasses.is_dataclass(given) and not isinstance(given, type):
        made = object.__new__(type(given))
        for field in dataclasses.fields(given):
            object.__setattr__(made, field.name, fake(getattr(given, field.name), memo))
    memo[id(given)] = made
    return made


def stepped(monkeypatch: pytest.MonkeyPatch, problem: str, chosen: lt.Method) -> None:
    """Two steps of the plan by gradient and rule, and where they end."""
    monkeypatch.delitem(capture.RECORDERS, "cuda")
    monkeypatch.setattr(eigen, "SWEEPS", 1)  # nothing is computed, so one is as good as all
    with torch.no_grad():
        made = prepared(PROBLEMS[problem](), chosen)
        with FakeTensorMode(), Reading():
            stepper = steppers.ByRule(fake(made, {}))
            with eigen.recorded_work():
                stepper.step(0)
                stepper.step(1)
            leaves = [*stepper.params, *capture.leaves_of(stepper.state)]
            assert {x.device.type for x in leaves if isinstance(x, Tensor)} == {"cuda"}
            shapes = [(x.shape, x.dtype) for x in stepper.params]
    assert shapes == [(x.shape, x.dtype) for x in made.start.trainable]


@pytest.mark.parametrize("name", [n for n in lt.METHODS if not method(n).facts.flow])
def test_a_step_of_every_method(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    stepped(monkeypatch, "linear", method(name))


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if p not in WRITING])
def test_a_step_on_every_problem_that_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    stepped(monkeypatch, problem, method("lora"))


def broken(change: Any) -> lt.Method:
    def factory(learning_rate: float, damping: float = 0.0) -> Rule:
        base = gd(learning_rate)

        def update(params: Any, gradients: Any, state: Any) -> Any:
            return base.update(params, tuple(change(G) for G in gradients), state)

        return Rule(base.init, update)

    return method("lora").with_rule(factory, name="broken")


def test_a_tensor_left_on_the_cpu_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = broken(lambda G: G + torch.zeros(G.shape, dtype=G.dtype))
    with pytest.raises(RuntimeError, match="same device"):
        stepped(monkeypatch, "linear", mixed)


def test_a_value_read_back_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for reading in (lambda G: G * G.sum().item(), lambda G: G if bool((G == G).all()) else -G):
        with pytest.raises(DataDependentOutputException), monkeypatch.context() as again:
            stepped(again, "linear", broken(reading))

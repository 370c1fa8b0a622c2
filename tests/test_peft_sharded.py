"""Fully sharded models (FSDP2) and distributed checkpoints, on two processes."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from peft_nets import QUIET, batch, config, net, peft, squared, step_on
from processes import on_two_processes
from tolerance import near
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

from loraone_theory.integrations.peft import (
    PairOptimizer,
    get_lora_one_gradients,
    initialize_lora_one_weights,
    lora_pairs,
)

pytestmark = [QUIET, pytest.mark.slow]

# Up to five steps of a gradient over 64 rows, forward and back, that move factors by 0.01 each.
HALVES = near(64, operations=2 * 5, scale=0.01, dtype=torch.float32)
RULES = {
    "scaled-adamw": {"damping": 1e-3},
    "lora-pro": {"betas": (0.9, 0.99)},
    "momentum": {},
}


def adapted() -> tuple[nn.Module, dict[str, Tensor]]:
    model = net(8, 10, 6)
    gradients = get_lora_one_gradients(model, config(), step_on(model, batch(8, 6)))
    return peft.get_peft_model(model, config()), gradients


def sharded(model: nn.Module, mesh) -> nn.Module:
    for name in ("0", "2"):
        fully_shard(model.base_model.model.get_submodule(name), mesh=mesh)
    return fully_shard(model, mesh=mesh)


def train(model: nn.Module, optimizer: PairOptimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        squared(model, *batch(8, 6)).backward()
        optimizer.step()


def factors(model: nn.Module) -> list[Tensor]:
    return [M.clone() for pair in lora_pairs(model) for M in pair.factors]


def complaint(work) -> str:
    try:
        work()
    except ValueError as error:
        return str(error)
    return ""


class Experts(nn.Module):
    """The mean of what two experts make of the input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(2, 8, 8) / 8**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight).tanh().mean(0)


def experts_on_a_process(rank: int, folder: str) -> Any:
    """Written to while they are whole, sharded, and trained beside a model that stays whole."""
    mesh = init_device_mesh("cpu", (2,))
    found = {}
    chosen = peft.LoraConfig(r=2, lora_alpha=4, target_modules=[], target_parameters=["0.weight"])
    for rule, hyper in RULES.items():
        model = nn.Sequential(Experts(), nn.Linear(8, 6))
        gradients = get_lora_one_gradients(model, chosen, step_on(model, batch(8, 6)))
        one = peft.get_peft_model(model, chosen)
        initialize_lora_one_weights(one, gradients)
        start = factors(one)
        whole = copy.deepcopy(one)
        for each in (fully_shard(one, mesh=mesh), whole):
            train(each, PairOptimizer(each, rule, lr=1e-2, **hyper), 3)
        parts = [p.detach().full_tensor() for n, p in one.named_parameters() if "lora_" in n]
        others = [p.detach() for n, p in whole.named_parameters() if "lora_" in n]
        moved = any(not torch.equal(a, b) for a, b in zip(start, factors(whole), strict=True))
        found[rule] = list(zip(parts, others, strict=True)), moved
    return found


def test_sharded_experts_train_as_whole_ones(tmp_path: Path) -> None:
    for found in on_two_processes(experts_on_a_process, tmp_path):
        assert list(found) == list(RULES)
        for pairs, moved in found.values():
            assert moved
            for mine, other in pairs:
                torch.testing.assert_close(mine, other, **HALVES)


def on_a_process(rank: int, folder: str) -> Any:
    """One of two processes."""
    mesh = init_device_mesh("cpu", (2,))
    found = {}
    for rule, hyper in RULES.items():
        one, gradients = adapted()
        whole = copy.deepcopy(one)
        for model in (whole, sharded(one, mesh)):
            initialize_lora_one_weights(model, gradients)
        found[f"{rule}: start"] = list(zip(factors(one), factors(whole), strict=True))
        both = [(m, PairOptimizer(m, rule, lr=1e-2, **hyper)) for m in (one, whole)]
        for model, optimizer in both:
            train(model, optimizer, 3)
        found[f"{rule}: trained"] = list(zip(factors(one), factors(whole), strict=True))
        optimizer = both[0][1]
        saved = {
            "model": state_dict.get_model_state_dict(one),
            "optimizer": state_dict.get_optimizer_state_dict(one, optimizer),
        }
        dcp.save(saved, checkpoint_id=f"{folder}/{rule}")
        two = sharded(adapted()[0], mesh)
        again = PairOptimizer(two, rule, lr=7.0, **hyper)
        loaded = {
            "model": state_dict.get_model_state_dict(two),
            "optimizer": state_dict.get_optimizer_state_dict(two, again),
        }
        dcp.load(loaded, checkpoint_id=f"{folder}/{rule}")
        state_dict.set_model_state_dict(two, loaded["model"])
        state_dict.set_optimizer_state_dict(two, again, loaded["optimizer"])
        train(one, optimizer, 2)
        train(two, again, 2)
        found[f"{rule}: resumed"] = list(zip(factors(one), factors(two), strict=True))
    base = fully_shard(net(8, 10, 6), mesh=mesh)
    flat = FullyShardedDataParallel(
        adapted()[0], device_id=torch.device("cpu"), use_orig_params=True
    )
    found["complaints"] = [
        complaint(lambda: get_lora_one_gradients(base, config(), lambda: None)),
        complaint(lambda: initialize_lora_one_weights(flat, {})),
        complaint(lambda: PairOptimizer(flat, "gd")),
    ]
    return found


def test_sharded_models_start_train_and_resume_as_whole_ones(tmp_path: Path) -> None:
    for found in on_two_processes(on_a_process, tmp_path):
        of_base, of_init, of_optimizer = found.pop("complaints")
        assert of_base.startswith("model must be whole on every process while gradients are")
        for text in (of_init, of_optimizer):
            assert "needs the factors of each layer; got FullyShardedDataParallel" in text
        assert len(found) == 3 * len(RULES)
        for name, pairs in found.items():
            for mine, other in pairs:
                if "trained" in name:  # sums over two halves of the gradients round otherwise
                    torch.testing.assert_close(mine, other, **HALVES)
                else:
                    assert torch.equal(mine, other), name
            assert all(bool(mine.any()) for mine, _ in pairs)

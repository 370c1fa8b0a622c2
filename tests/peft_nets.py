"""What the tests of the PEFT route share: the packages, small networks, batches, configurations.

Importing this skips the importing module where the extra is not installed, so it comes before
anything that needs it.
"""

import itertools
from collections.abc import Callable

import pytest
import torch
from tolerance import rounding
from torch import Tensor, nn

from loraone_theory.integrations.peft import lora_pairs
from loraone_theory.integrations.sharded import is_sharded

peft = pytest.importorskip("peft", reason="needs the extra peft")
transformers = pytest.importorskip("transformers", reason="needs the extra peft")

# PEFT asks transformers for an attribute under its former name.
QUIET = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

# The gradient is kept in float32: products of factors made from it carry a few of its roundings.
FLOAT32 = rounding(8, dtype=torch.float32)


def net(*widths: int, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for d, k in itertools.pairwise(widths):
        layers += [nn.Linear(d, k), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).to(dtype)


def batch(d: int, k: int, seed: int = 1, n: int = 64) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=rng), torch.randn(n, k, generator=rng)


def squared(model: nn.Module, X: Tensor, Y: Tensor) -> Tensor:
    return (model(X) - Y).square().sum() / (2 * len(X))


def step_on(model: nn.Module, *batches: tuple[Tensor, Tensor]) -> Callable[[], None]:
    def train_step() -> None:
        for X, Y in batches:
            squared(model, X, Y).backward()

    return train_step


def config(*names: str, r: int = 3, **more: object) -> peft.LoraConfig:
    return peft.LoraConfig(r=r, lora_alpha=12, target_modules=list(names) or ["0", "2"], **more)


def close(found: Tensor, expected: Tensor, tolerance: float = FLOAT32) -> bool:
    return bool((found - expected).norm() <= tolerance * expected.norm())


def best(G: Tensor, rank: int) -> Tensor:
    U, S, Vh = torch.linalg.svd(G.double(), full_matrices=False)
    return (U[:, :rank] * S[:rank]) @ Vh[:rank]


def right_step(
    wrapped: nn.Module, gradients: dict[str, Tensor], adapter: str, gamma: float
) -> None:
    """The factors, read from the parameters, make −γ times the best part of each gradient.

    Where no process holds a part only, so does what PEFT would merge.
    """
    pairs = lora_pairs(wrapped, adapter)
    assert {pair.source for pair in pairs} == set(gradients)
    for pair in pairs:
        G = gradients[pair.source].double()
        G = G if pair.expert is None else G[pair.expert]
        A, B = (M.double() for M in pair.factors)
        tolerance = 30 * torch.finfo(pair.down.dtype).eps
        step = -gamma * best(pair.as_ours(G), pair.rank)
        assert close(pair.scale * A @ B, step, tolerance), pair.name
        if not is_sharded(pair.down):
            delta = pair.layer.get_delta_weight(adapter)
            delta = delta if pair.expert is None else delta[pair.expert]
            # PEFT rounds the product to the base's dtype in experts.
            tolerance = 30 * torch.finfo(delta.dtype).eps
            assert close(pair.as_ours(delta.double()), step, tolerance), pair.name

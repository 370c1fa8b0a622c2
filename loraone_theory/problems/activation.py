"""Random instances of one layer with a smooth activation: problems made from their loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from loraone_theory.core import validate
from loraone_theory.problems.autograd import Loss, LossProblem
from loraone_theory.problems.drawn import drawn
from loraone_theory.problems.from_loss import from_loss
from loraone_theory.problems.relu.sampling import sample_relu

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "softplus": functional.softplus,
    "tanh": torch.tanh,
}


def mean_squares(activation: Callable[[Tensor], Tensor]) -> Loss:
    """loss(W, X, Y) = 1/(2N) ‖φ(XW) − Y‖_F²."""

    def loss(W: Tensor, X: Tensor, Y: Tensor) -> Tensor:
        return 0.5 * (activation(X @ W) - Y).square().sum(-1).mean()

    return loss


@drawn
def sample_activation(
    *,
    d: int,
    k: int,
    true_rank: int,
    samples: int,
    relative_shift: float,
    activation: str = "gelu",
    condition_number: float = 1.0,
    seeds: Sequence[int] = (0,),
    dtype: torch.dtype | str = torch.float64,
    device: torch.device | str = "cpu",
) -> LossProblem:
    """Fit Y = φ(X(W + Δ)) by φ(X(W_f + AB)) with X, W and Δ of `sample_relu`.

    Args:
        activation: φ, "gelu", "softplus" or "tanh"; the others are those of `sample_relu`.

    Returns:
        A LossProblem of batch shape (len(seeds),).

    >>> problem = sample_activation(d=6, k=5, true_rank=2, samples=40, relative_shift=0.1)
    >>> problem.batch_shape, problem.samples, problem.true_rank
    (torch.Size([1]), 40, 2)
    """
    phi = ACTIVATIONS[validate.choice("activation", activation, ACTIVATIONS)]
    base = sample_relu(
        d=d,
        k=k,
        true_rank=true_rank,
        samples=samples,
        relative_shift=relative_shift,
        condition_number=condition_number,
        seeds=seeds,
        dtype=dtype,
        device=device,
    )
    Y = phi(base.inputs @ (base.pretrained + base.shift.dense()))
    data = (base.inputs, Y)
    known = {"pretrained": base.pretrained, "shift": base.shift}
    made = from_loss(mean_squares(phi), d=d, k=k, data=data, batched=1, **known)  # type: ignore[arg-type]
    object.__setattr__(made, "seeds", base.seeds)
    return made

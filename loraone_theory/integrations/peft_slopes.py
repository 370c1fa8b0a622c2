"""The change of the loss along a step, to first order, as the weights' gradients have it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from loraone_theory.integrations import distributed
from loraone_theory.integrations.peft_find import ParamWrapper, base_model, is_meta
from loraone_theory.integrations.peft_layers import Pair
from loraone_theory.integrations.peft_leaves import ADDED, placed
from loraone_theory.integrations.peft_targets import Target
from loraone_theory.integrations.sharded import is_sharded

# Of the largest slope: below it a difference is rounding, or does not matter.
SMALL = 0.01


@contextlib.contextmanager
def through_weights(
    model: nn.Module, pairs: Sequence[Pair], ups: Mapping[int, Tensor]
) -> Iterator[dict[str, float]]:
    """⟨∇_W L, sA₀B₀⟩ by name, summed as gradients come, of which one at a time is held.

    Left out are adapters of a parameter, which are inside of it, and weights that have no gradient,
    such as quantised or sharded ones.

    Args:
        model: with the adapters, whose B is zero for now.
        pairs: of the adapters.
        ups: B₀ᵀ by the id of the layer.
    """
    root = base_model(model)
    paths = {id(module): path for path, module in root.named_modules()}
    inside = {pair.name: pair for pair in pairs if not isinstance(pair.layer, ParamWrapper)}
    found = {
        name: Target(paths[id(base)], base)
        for name, base in ((name, pair.layer.get_base_layer()) for name, pair in inside.items())
        if _has_gradient(base.weight)
    }
    slopes = dict.fromkeys(found, 0.0)

    def add(name: str) -> Callable[[Tensor], None]:
        pair = inside[name]

        def hook(leaf: Tensor) -> None:
            gradient = leaf.grad
            assert gradient is not None
            leaf.grad = None
            G = pair.as_ours(gradient.detach())
            wide = torch.promote_types(G.dtype, torch.float32)
            product = pair.down.detach().to(wide) @ G.to(wide)
            slopes[name] += pair.scale * float((product * ups[id(pair.layer)].mT).sum())

        return hook

    with placed(root, found) as leaves:
        for name, leaf in leaves.items():
            leaf.register_post_accumulate_grad_hook(add(name))
        yield slopes


def _has_gradient(weight: object) -> bool:
    return (
        type(weight) is nn.Parameter
        and weight.is_floating_point()
        and not is_meta(weight)
        and not is_sharded(weight)
    )


def apart(of_weights: Mapping[str, float], of_adapters: Mapping[str, float]) -> list[str]:
    """Names whose two slopes, means over processes, are further apart than noise explains.

    >>> apart({"a": -1.0, "b": -0.5}, {"a": -1.01, "b": -0.25, "c": -3.0})
    ['b']
    """
    if not of_weights:
        return []
    both = torch.tensor([[own, of_adapters[name]] for name, own in of_weights.items()])
    both = distributed.mean_(both.double())
    own, other = both.unbind(1)
    gaps = (own - other).abs() > ADDED * own.abs() + SMALL * own.abs().max()
    return [name for name, gap in zip(of_weights, gaps.tolist(), strict=True) if gap]

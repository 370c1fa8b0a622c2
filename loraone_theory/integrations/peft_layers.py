"""Where the pairs of a PEFT model are, whatever is wrapped around it."""

from __future__ import annotations

from typing import NamedTuple, cast

from torch import Tensor, nn

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors
from loraone_theory.integrations.peft_find import (
    Conv1D,
    FullyShardedDataParallel,
    LoraLayer,
    MultiheadAttention,
    ParamWrapper,
    base_model,
    named_inside,
    refuse,
)
from loraone_theory.integrations.sharded import whole


class Pair(NamedTuple):
    """One LoRA pair of a model: W_eff = W + scale·AB with A = down.weightᵀ, B = up.weightᵀ.

    Args:
        name: the module's name in the base model, without PEFT's prefix and those of wrappers.
        layer: PEFT's layer around the base module.
        down: lora_A's weight (r, d).
        up: lora_B's weight (k, r).
        scale: s = α/r or α/√r, whatever PEFT multiplies by.
        adapter: which adapter it is of.
        expert: which one, where the layer holds a pair for each of several experts; then `down`
            and `up` are views of the layer's parameters, or of copies where those are sharded.
    """

    name: str
    layer: LoraLayer
    down: Tensor
    up: Tensor
    scale: float
    adapter: str = "default"
    expert: int | None = None

    @property
    def factors(self) -> Factors:
        """A (d, r) and B (r, k), without the scale; views, where no process holds a part only."""
        return Factors(whole(self.down).mT, whole(self.up).mT)

    def current(self) -> Pair:
        """The pair with the parameters that the layer has now.

        Raises:
            ValueError: it has no adapter of this name any more.
        """
        if self.adapter not in self.layer.lora_A:
            raise ValueError(
                f"a pair must still be in its model; got {self.name}, which has lost its adapter "
                f"{self.adapter!r}; call lora_pairs again"
            )
        down, up = weights(self.layer, self.adapter)
        if self.expert is None:
            return self._replace(down=down, up=up)
        downs, ups = by_expert(down, up, self.experts)
        return self._replace(down=downs[self.expert], up=ups[self.expert])

    @property
    def source(self) -> str:
        """The name of its weight's gradient: `name` without the expert."""
        return self.name if self.expert is None else self.name.removesuffix(f"[{self.expert}]")

    @property
    def rank(self) -> int:
        """r."""
        return self.down.shape[0]

    @property
    def experts(self) -> int:
        """How many pairs the layer holds."""
        return self.layer.num_experts if isinstance(self.layer, ParamWrapper) else 1

    @property
    def base_shape(self) -> tuple[int, int]:
        """Shape of the base module's weight: (k, d), or (d, k) for Conv1D."""
        k, d = self.up.shape[0], self.down.shape[1]
        return (d, k) if self.transposed else (k, d)

    @property
    def transposed(self) -> bool:
        """True where the base stores W and not Wᵀ: in Conv1D, and for some models' experts."""
        if isinstance(self.layer, ParamWrapper):
            return self.expert is not None and not self.layer._did_swap_in_out_features
        return isinstance(self.layer.get_base_layer(), Conv1D)

    def as_ours(self, weight: Tensor) -> Tensor:
        """A matrix of the shape of the base weight as (d, k)."""
        return weight if self.transposed else weight.mT


class Survey(NamedTuple):
    """The layers of one adapter: pairs, and the rest by name with the reason."""

    pairs: list[Pair]
    unsupported: dict[str, str]


def survey(model: nn.Module, adapter_name: str = "default") -> Survey:
    """All layers of one adapter, in the order of `named_modules`.

    Raises:
        ValueError: no such adapter.
    """
    root = base_model(model)
    layers = {n: (full, m) for full, n, m in named_inside(root) if isinstance(m, LoraLayer)}
    adapters = {key for _, m in layers.values() for key in _adapters(m)}
    if not adapters:
        raise ValueError(
            f"model must have LoRA layers; got {type(model).__name__} without any; "
            "pass the result of peft.get_peft_model"
        )
    validate.choice("adapter_name", adapter_name, sorted(adapters))
    refuse(
        "LoRA-One needs the factors of each layer",
        [type(m).__name__ for m in model.modules() if isinstance(m, FullyShardedDataParallel)]
        or [n for n, (_, m) in layers.items() if any(p.numel() == 0 for p in m.parameters())],
        "which are flattened or partitioned; shard with torch's fully_shard, whose parameters stay "
        "apart, or do this before the model is wrapped",
    )
    pairs: list[Pair] = []
    unsupported = {}
    for name, (full, layer) in layers.items():
        if adapter_name not in _adapters(layer):
            continue
        reason = _unsupported(root, full, layer, adapter_name)
        if reason:
            unsupported[name] = reason
            continue
        pairs += _of_layer(name, layer, adapter_name)
    return Survey(pairs, unsupported)


def weights(layer: LoraLayer, adapter_name: str) -> tuple[nn.Parameter, nn.Parameter]:
    """The parameters that hold the pair, or the pairs, of one layer."""
    A, B = layer.lora_A[adapter_name].weight, layer.lora_B[adapter_name].weight
    return cast(nn.Parameter, A), cast(nn.Parameter, B)


def _of_layer(name: str, layer: LoraLayer, adapter_name: str) -> list[Pair]:
    down, up = weights(layer, adapter_name)
    scale = float(layer.scaling[adapter_name])
    if not isinstance(layer, ParamWrapper):
        return [Pair(name, layer, down, up, scale, adapter_name)]
    # Wrappers of several parameters of one module are nested.
    name = f"{name.replace('.base_layer', '')}.{layer.parameter_name}"
    if layer.num_experts == 1:
        return [Pair(name, layer, down, up, scale, adapter_name)]
    downs, ups = by_expert(down, up, layer.num_experts)
    return [
        Pair(f"{name}[{e}]", layer, downs[e], ups[e], scale, adapter_name, e)
        for e in range(layer.num_experts)
    ]


def by_expert(down: Tensor, up: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """Views (..., experts, r, d), (..., experts, k, r) of (..., experts·r, d), (..., k, r·experts).

    PEFT orders the rows of one by expert first, the columns of the other by expert last.
    """
    down, up = whole(down), whole(up)
    return down.unflatten(-2, (experts, -1)), up.unflatten(-1, (-1, experts)).movedim(-1, -3)


LINEAR = "LoRA-One applies to linear layers and Conv1D"
PLAIN = "LoRA-One applies to plain LoRA, W + sAB"
AROUND = "an adapter needs a module that the forward pass calls, not one that it takes weights from"
OTHER = "an adapter is added to Wx + b, which its module has to compute"
HOOKED = (
    "hooks must not change what a target is given or returns, for PEFT's adapter goes around them"
)
REMEDIES = {
    LINEAR: "leave them out of target_modules, or pass missing='lora'",
    PLAIN: "configure the adapter without use_dora and other variants",
    AROUND: "leave them out of target_modules: PEFT's adapter has no effect there",
    OTHER: "leave them out of target_modules, for the weight's gradient is not the adapter's there",
    HOOKED: "remove the hooks, or leave these modules out of target_modules",
}


def lora_pairs(model: nn.Module, adapter_name: str = "default") -> list[Pair]:
    """The pairs of one adapter, in the order of `named_modules`.

    Args:
        model: a PeftModel, a module that adapters were injected into, or one that holds either,
            also compiled or in (Distributed)DataParallel.
        adapter_name: which adapter.

    Raises:
        ValueError: no such adapter; one on layers other than linear ones; one whose effective
            weight is not W + sAB, such as DoRA; one that the forward pass goes around.
    """
    pairs, unsupported = survey(model, adapter_name)
    for reason, remedy in REMEDIES.items():
        refuse(reason, [name for name, why in unsupported.items() if why == reason], remedy)
    return pairs


def _adapters(layer: LoraLayer) -> set[str]:
    return {*layer.lora_A.keys(), *layer.lora_embedding_A.keys()}


def _unsupported(root: nn.Module, full: str, layer: LoraLayer, adapter_name: str) -> str:
    """Why this layer has no pair of ours; "" where it has one."""
    linear = adapter_name in layer.lora_A and isinstance(layer.lora_A[adapter_name], nn.Linear)
    if not linear or isinstance(layer, MultiheadAttention):
        return LINEAR
    if isinstance(root.get_submodule(full.rpartition(".")[0]), nn.MultiheadAttention):
        return AROUND
    return PLAIN if is_variant(layer, adapter_name) else ""


def is_variant(layer: LoraLayer, adapter_name: str) -> bool:
    """True where the effective weight is not W + sAB."""
    return bool(layer.use_dora.get(adapter_name)) or adapter_name in layer.lora_variant

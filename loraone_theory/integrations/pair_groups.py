"""Parameter groups of `PairOptimizer`: what is trained by which rule, checked when it is built."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from loraone_theory.core import tall, validate
from loraone_theory.integrations import pair_state
from loraone_theory.integrations.pair_rules import TORCH_NAMES, Group, accepted, known, make, stated
from loraone_theory.integrations.peft_layers import Pair, by_expert, lora_pairs, survey, weights

# What a parameter group holds besides the hyper-parameters of its rule.
RESERVED = ("params", "scales", "experts", "rule", "lr", "initial_lr")


def groups(given: Any, adapter_name: str, others: Group | None) -> list[dict[str, Any]]:
    """Groups of flat params; those of pairs also list the scales.

    Raises:
        ValueError: trainable parameters of a model that no group holds.
    """
    if others is not None:
        validate.instance("others", others, Mapping, "write others={'rule': 'adamw', 'lr': 1e-3}")
    if isinstance(given, nn.Module):
        return _of_model(given, adapter_name, others)
    if others is not None:
        raise ValueError("others goes with a model; got groups or pairs; add a group with 'params'")
    items = validate.sequence("pairs", given)
    if all(isinstance(item, Pair) for item in items):
        return [_of_pairs({"pairs": items})]
    for item in items:
        validate.instance("pairs", item, Mapping, "give a model, pairs of lora_pairs, or groups")
    return [of_group(group, adapter_name) for group in items]


def of_group(group: Group, adapter_name: str) -> dict[str, Any]:
    """A group whose params are a list.

    Raises:
        ValueError: it has neither "pairs" nor "params", or params that are complex.
        TypeError: params that are not tensors in an order.
    """
    if "pairs" not in group and "params" not in group:
        raise ValueError(
            f"a group must have 'pairs' or 'params'; got {', '.join(map(repr, group)) or 'none'}"
        )
    if "pairs" in group:
        return _of_pairs(group, adapter_name)
    params = group["params"]
    if isinstance(params, (set, frozenset)):
        raise TypeError("params must be in an order; got a set; give a list")
    # An iterator, such as module.parameters(), can be gone through once only.
    params = [params] if isinstance(params, Tensor) else list(params)
    for p in params:
        validate.instance("each of params", p, Tensor, "give tensors without their names")
    if any(p.is_complex() for p in params):
        raise ValueError("params must be real; got complex ones; train torch.view_as_real of them")
    return {**group, "params": params}


def _of_model(model: nn.Module, adapter_name: str, others: Group | None) -> list[dict[str, Any]]:
    pairs = survey(model, adapter_name).pairs
    group = _of_pairs({"pairs": [pair for pair in pairs if _trains(pair)]})
    inside = {id(p) for p in group["params"]}
    outside = {n: p for n, p in model.named_parameters() if p.requires_grad}
    outside = {n: p for n, p in outside.items() if id(p) not in inside}
    if others is not None:
        return [group, {"params": list(outside.values()), **others}]
    if outside:
        raise ValueError(
            f"the model also trains {', '.join(list(outside)[:3])} ({len(outside)} tensors "
            "outside the pairs); say how, for example others={'rule': 'adamw', 'lr': 1e-3}, "
            "or freeze them"
        )
    return [group]


def _trains(pair: Pair) -> bool:
    return any(p.requires_grad for p in weights(pair.layer, pair.adapter))


def _of_pairs(group: Group, adapter_name: str = "default") -> dict[str, Any]:
    pairs = group["pairs"]
    pairs = lora_pairs(pairs, adapter_name) if isinstance(pairs, nn.Module) else list(pairs)
    for pair in pairs:
        validate.instance("each of pairs", pair, Pair, "give a model, or pairs of lora_pairs")
    rest = {key: value for key, value in group.items() if key != "pairs"}
    # The pairs of a layer's experts are in one pair of parameters.
    first = [pair for pair in pairs if not pair.expert]
    return {
        "params": [p for pair in first for p in weights(pair.layer, pair.adapter)],
        "scales": [pair.scale for pair in first],
        "experts": [pair.experts for pair in first],
        **rest,
    }


def with_defaults(group: Group, rule: str, lr: float, hyper: Mapping[str, Any]) -> dict[str, Any]:
    """A group that says everything, under the names that torch's schedulers know.

    Raises:
        ValueError: an unknown rule or hyper-parameter; one that is missing or out of range; a rule
            for pairs on other tensors.
    """
    name = group.get("rule", rule)
    own = {key: value for key, value in group.items() if key not in RESERVED}
    accepted(name, own)
    inherited = dict(hyper) if name == rule else {}
    if "scales" not in group:
        if "ratio" in own:
            raise ValueError(
                "ratio is that of the steps of B and A; got it for other parameters than pairs; "
                "give them an lr of their own"
            )
        inherited.pop("ratio", None)
    whole = {"lr": lr, **group, "rule": name, **stated(name), **inherited, **own}
    validate.number("lr", whole["lr"])
    make(whole, 1.0)
    return {TORCH_NAMES.get(key, key): value for key, value in whole.items()}


def joining(
    group: Group, defaults: Mapping[str, Any], held: Sequence[Group], adapter_name: str
) -> dict[str, Any]:
    """A group that comes later, with everything said.

    Raises:
        ValueError: as `with_defaults`; a group with neither "pairs" nor "params".
    """
    made = of_group(group, adapter_name)
    rule = made.get("rule", defaults["rule"])
    accepted(rule, ())
    like: Group = next((g for g in held if g["rule"] == rule), {})
    theirs = {name: TORCH_NAMES.get(name, name) for name in known(rule) - {"scale"}}
    hyper = {name: like[key] for name, key in theirs.items() if key in like}
    return with_defaults(made, rule, defaults["lr"], hyper)


def of_the_model(group: Group) -> dict[str, Any]:
    """What a group has of the model, which no checkpoint changes."""
    return {key: group[key] for key in ("scales", "experts") if key in group}


def same_rules(saved: Any, held: Sequence[Group]) -> None:
    """Groups of a checkpoint have the rules of those that they are loaded into.

    Raises:
        ValueError: they have others, or are of another kind of optimiser.
    """
    groups = validate.sequence("state_dict['param_groups']", saved)
    for group in groups:
        validate.instance(
            "a group of state_dict", group, Mapping, "give what state_dict() returned"
        )
        if "params" not in group:
            raise ValueError(
                "a group of state_dict must have 'params'; got none; "
                "give what state_dict() returned"
            )
    rules = [str(group.get("rule", "no rule")) for group in groups]
    wanted = [str(group["rule"]) for group in held]
    if rules != wanted:
        raise ValueError(
            f"state_dict must be of the same rules, group by group; got {', '.join(rules)} for "
            f"{', '.join(wanted)}; build the optimiser as the one that was saved"
        )


# Moments above this many times the pairs' own size are worth a word.
LARGE = 4


def say_what_is_held(made: Sequence[Group]) -> None:
    """Warn where a rule's state is far larger than what it trains."""
    held = trained = 0
    for group in made:
        for unit in units(group):
            like = as_ours(unit, [p.detach().to("meta") for p in unit.tensors])
            state = make(group, unit.scale).init(like)
            held += sum(x.numel() for x in pair_state.leaves(state) if isinstance(x, Tensor))
            trained += sum(p.numel() for p in unit.tensors)
    if held > LARGE * trained:
        warnings.warn(
            f"the rule keeps {4 * held / 1e6:.3g} MB for {4 * trained / 1e6:.3g} MB of "
            "parameters: the moments of lora-pro with betas are of whole weights; "
            "moments='pair' keeps them on the pair, which is another method",
            stacklevel=3,
        )


class Unit(NamedTuple):
    """What a rule is applied to at once: a pair, the pairs of a layer's experts, or one tensor.

    Args:
        tensors: the parameters.
        scale: s of a pair.
        experts: how many pairs the parameters hold; 0 for a tensor alone.
    """

    tensors: tuple[Tensor, ...]
    scale: float | None = None
    experts: int = 0


def units(group: Group) -> list[Unit]:
    """All of a group."""
    params = group["params"]
    if "scales" not in group:
        return [Unit((p,)) for p in params]
    # Checkpoints of earlier versions know no experts.
    experts = group.get("experts", [1] * len(group["scales"]))
    pairs = zip(params[::2], params[1::2], strict=True)
    return [Unit(*each) for each in zip(pairs, group["scales"], experts, strict=True)]


def as_ours(unit: Unit, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Tensors like a unit's parameters, each with any leading axes, as rules take them.

    A (..., d, r) and B (..., r, k), or a matrix of at least one row; of one dense layout.
    """
    if unit.experts > 1:
        first, second = tensors
        downs, ups = by_expert(first, second, unit.experts)
        return tall.layout(downs.mT), tall.layout(ups.mT)
    return tuple(
        t.mT if p.ndim == 2 else t.reshape(*t.shape[: t.ndim - p.ndim], -1, 1)
        for p, t in zip(unit.tensors, tensors, strict=True)
    )


def as_theirs(unit: Unit, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The inverse of `as_ours`."""
    if unit.experts > 1:
        A, B = tensors
        return A.mT.flatten(-3, -2), B.movedim(-3, -1).transpose(-3, -2).flatten(-2)
    return tuple(
        t.mT if p.ndim == 2 else t.reshape(*t.shape[:-2], *p.shape)
        for p, t in zip(unit.tensors, tensors, strict=True)
    )

"""A small adapted network, its gradients and what trains or watches it, made anew at every call."""

from pathlib import Path
from typing import Any

import torch
from peft_nets import batch, config, net, peft, step_on

from loraone_theory.integrations import peft_cache
from loraone_theory.integrations.alignment import AlignmentTracker
from loraone_theory.integrations.peft import PairOptimizer, get_lora_one_gradients

BATCH = batch(6, 4, n=16)


def base() -> torch.nn.Module:
    return net(6, 5, 4)


def lora_config() -> Any:
    return config(r=2)


def gradients() -> dict[str, Any]:
    model = base()
    return get_lora_one_gradients(model, lora_config(), step_on(model, BATCH))


def adapted() -> torch.nn.Module:
    return peft.get_peft_model(base(), lora_config())


def estimated() -> dict[str, Any]:
    """Arguments that belong together: a model, its configuration and a step on it."""
    model = base()
    return {"model": model, "lora_config": lora_config(), "train_step": step_on(model, BATCH)}


def tracker() -> AlignmentTracker:
    made = AlignmentTracker(adapted(), gradients())
    made.step()
    return made


def optimizer() -> PairOptimizer:
    model = adapted()
    made = PairOptimizer(model, "gd", lr=0.1)
    step_on(model, BATCH)()
    return made


def saved(path: Path) -> None:
    peft_cache.save(path, GRADIENTS, {})


GRADIENTS = gradients()

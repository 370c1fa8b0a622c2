"""The PEFT route against PEFT's own: estimation, initialisation and a step, on one transformer."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peft
import peft.optimizers
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from loraone_theory.bench.base import Row, Setting, in_pairs
from loraone_theory.integrations.pair_optimizer import PairOptimizer
from loraone_theory.integrations.peft_config import LoRAOneConfig
from loraone_theory.integrations.peft_find import LoraConfig, LoraLayer, base_model
from loraone_theory.integrations.peft_gradients import get_lora_one_gradients
from loraone_theory.integrations.peft_init import initialize_lora_one_weights

RANK = 8
# Below this width the code is tried out, and one process is enough.
TRIED = 64


def transformer(width: int, layers: int) -> LlamaForCausalLM:
    """A Llama of random weights."""
    torch.manual_seed(0)
    heads = max(1, width // 64)
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            vocab_size=256,
        )
    )


def step_of(model: nn.Module, tokens: int) -> Callable[[], None]:
    """Forward and backward on one batch."""
    ids = torch.randint(0, 256, (2, tokens), generator=torch.Generator().manual_seed(1))
    ids = ids.to(next(model.parameters()).device)

    def train_step() -> None:
        model(input_ids=ids, labels=ids).loss.backward()

    return train_step


def config(**more: Any) -> LoraConfig:
    """All linear layers but the head."""
    return LoraConfig(r=RANK, lora_alpha=16, target_modules="all-linear", **more)


def targeted(model: nn.Module) -> list[nn.Linear]:
    """The modules of that configuration."""
    return [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n != "lm_head"]


def plain_backward(model: nn.Module, tokens: int, *, kept: bool = False) -> Callable[[], None]:
    """The gradients of the targeted weights and nothing around it; `kept`: copied to the host."""
    model.requires_grad_(False)
    modules = targeted(model)
    for module in modules:
        module.weight.requires_grad_(True)
    step = step_of(model, tokens)

    def run() -> None:
        step()
        for module in modules:
            if kept and module.weight.grad is not None:
                module.weight.grad.to("cpu", copy=True)
            module.weight.grad = None

    return run


def ours(model: nn.Module, tokens: int, **more: Any) -> dict[str, Any]:
    """This library's estimation."""
    return get_lora_one_gradients(model, config(), step_of(model, tokens), **more)


def theirs(model: nn.Module, tokens: int) -> None:
    """LoRA-GA's, by PEFT."""
    lora = config(init_lora_weights="lora_ga", lora_ga_config=peft.LoraGAConfig())
    lora.target_modules = [name for name, m in model.named_modules() if m in set(targeted(model))]
    peft.tuners.lora.loraga.preprocess_loraga(model, lora, step_of(model, tokens))


def peak_above(work: Callable[[], object]) -> int:
    """By how many bytes the process grows beyond what it holds now, at most, while `work` runs."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts at what is held now

    def kilobytes(key: str) -> int:
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith(key))

    before = kilobytes("VmRSS")
    work()
    return 1024 * (kilobytes("VmHWM") - before)


PEAK = """
import json, torch, warnings
from loraone_theory.integrations import peft_bench as b
warnings.simplefilter("ignore")
torch.set_num_threads(1)
model = b.transformer({width}, {layers})
print(json.dumps(b.peak_above(lambda: b.{call})))
"""


def peak_of(call: str, width: int, layers: int) -> int | None:
    """Peak memory of a call beyond the model, in a fresh process; None where it cannot be known."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    code = PEAK.format(width=width, layers=layers, call=call)
    # Freed blocks go back at once, so that what is held is what is needed.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(json.loads(done.stdout.splitlines()[-1]))


def estimation(width: int, layers: int, tokens: int, pairs: int) -> Iterator[Row]:
    """Time against a plain backward, memory against PEFT's, in fresh processes."""
    model, other = transformer(width, layers), transformer(width, layers)
    plain = plain_backward(other, tokens)
    plain()
    calls = {
        "backward_peak_bytes": f"plain_backward(model, {tokens})()",
        "peft_peak_bytes": f"theirs(model, {tokens})",
        "ours_peak_bytes": f"ours(model, {tokens})",
        "svd_peak_bytes": f"ours(model, {tokens}, reduce='svd')",
        "sketch_peak_bytes": f"ours(model, {tokens}, reduce='sketch')",
    }
    if width < TRIED:
        calls = {"ours_peak_bytes": calls["ours_peak_bytes"]}
    peaks = {name: peak_of(call, width, layers) for name, call in calls.items()}
    yield in_pairs(
        "peft/estimation",
        "a plain backward pass",
        plain,
        lambda: ours(model, tokens),
        pairs=pairs,
        width=width,
        layers=layers,
        peak_bytes=peaks,
    )


def initialisation(width: int, layers: int, tokens: int, pairs: int) -> Iterator[Row]:
    """Against LoRA-GA's own, from the same gradients."""
    model = transformer(width, layers)
    gradients = ours(model, tokens)
    lora = peft.LoraGAConfig()
    ga = peft.get_peft_model(copy.deepcopy(model), config())
    inner = base_model(ga)
    modules = [(n, m) for n, m in inner.named_modules() if isinstance(m, LoraLayer)]

    def lora_ga() -> None:
        for name, module in modules:
            module.get_base_layer()._peft_loraga_grad = gradients[name]
            module.lora_ga_init("default", lora)

    wrapped = peft.get_peft_model(model, config())
    lora_ga()
    for svd in ("auto", "released", "exact"):
        options = LoRAOneConfig(svd=svd)
        reports = initialize_lora_one_weights(wrapped, gradients, options, overwrite=True)
        yield in_pairs(
            f"peft/initialisation, svd={svd!r}",
            "LoRA-GA's by PEFT",
            lora_ga,
            lambda options=options: initialize_lora_one_weights(  # type: ignore[misc]
                wrapped, gradients, options, overwrite=True
            ),
            pairs=pairs if svd == "auto" else 1,
            energy=min(report.energy for report in reports.values()),
        )


def steps(width: int, layers: int, tokens: int, pairs: int) -> Iterator[Row]:
    """A step of each optimiser on the same gradients."""
    cases: dict[str, tuple[str, Callable[[Any], Any], dict[str, Any]]] = {
        "peft/step of scaled-adamw": (
            "create_riemannian_optimizer by PEFT",
            lambda m: peft.optimizers.create_riemannian_optimizer(m, torch.optim.AdamW, lr=1e-5),
            {"rule": "scaled-adamw", "order": "peft", "damping": 1e-2},
        ),
        "peft/step of adamw with ratio": (
            "create_loraplus_optimizer by PEFT",
            lambda m: peft.optimizers.create_loraplus_optimizer(
                m, torch.optim.AdamW, lr=1e-5, loraplus_lr_ratio=16
            ),
            {"rule": "adamw", "ratio": 16.0},
        ),
        "peft/step of adamw": (
            "torch.optim.AdamW",
            lambda m: torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=1e-5),
            {"rule": "adamw"},
        ),
    }
    model = peft.get_peft_model(transformer(width, layers), config(init_lora_weights=False))
    step_of(model, tokens)()
    held: dict[nn.Parameter, Tensor] = {p: p.grad for p in model.parameters() if p.grad is not None}
    for name, (baseline, make, settings) in cases.items():
        mine, other = PairOptimizer(model, lr=1e-5, **settings), make(model)

        def stepped(optimizer: Any) -> None:
            for p, gradient in held.items():
                p.grad = gradient.clone()  # PEFT's changes them in place
            optimizer.step()

        stepped(other)
        yield in_pairs(
            name,
            baseline,
            lambda other=other: stepped(other),  # type: ignore[misc]
            lambda mine=mine: stepped(mine),  # type: ignore[misc]
            pairs=4 * pairs,
        )


def rows(setting: Setting) -> Iterator[Row]:
    """All of them."""
    width, layers, tokens = (32, 1, 8) if setting.tiny else (1024, 4, 128)
    for part in (estimation, initialisation, steps):
        yield from part(width, layers, tokens, setting.pairs)

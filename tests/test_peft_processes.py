"""The PEFT route on several processes."""

from pathlib import Path
from typing import Any

import torch
from peft_nets import QUIET, batch, best, close, config, net, peft, step_on
from processes import on_two_processes
from torch import nn

from loraone_theory.integrations.peft import (
    LoRAOneConfig,
    get_lora_one_gradients,
    initialize_lora_one_weights,
    lora_pairs,
)

pytestmark = QUIET


def on_a_process(rank: int, folder: str) -> Any:
    """One of two processes."""
    model = nn.parallel.DistributedDataParallel(net(8, 10, 6))
    X, Y = batch(8, 6)
    mine = slice(rank * 32, (rank + 1) * 32)
    gradients = get_lora_one_gradients(
        model,
        config(),
        step_on(model, (X[mine], Y[mine])),
        cache_file=f"{folder}/cache.safetensors",
    )
    torch.manual_seed(rank)  # the adapters differ before they are initialised
    wrapped = peft.get_peft_model(model.module, config())
    reports = initialize_lora_one_weights(
        nn.parallel.DistributedDataParallel(wrapped), gradients, LoRAOneConfig("spectral")
    )
    pairs = {pair.name: tuple(pair.factors) for pair in lora_pairs(wrapped)}
    complaints = []
    try:
        initialize_lora_one_weights(wrapped, gradients if rank == 0 else {}, overwrite=True)
    except ValueError as error:
        complaints.append(str(error))
    other = net(8, 10, 6)
    try:
        get_lora_one_gradients(other, config(), [step_on(other, (X, Y)), lambda: 1 // 0][rank])
    except ValueError as error:
        complaints.append(str(error))
    found = (gradients, pairs, {n: tuple(r) for n, r in reports.items()}, complaints)
    return found


def test_two_processes_average_and_agree(tmp_path: Path) -> None:
    first, second = on_two_processes(on_a_process, tmp_path)
    model = net(8, 10, 6)
    whole = get_lora_one_gradients(model, config(), step_on(model, batch(8, 6)))
    for name, G in whole.items():
        assert close(first[0][name], G)
        assert torch.equal(first[0][name], second[0][name])
        assert all(torch.equal(a, b) for a, b in zip(first[1][name], second[1][name], strict=True))
        A, B = first[1][name]
        assert close(4.0 * (A @ B).double(), best(-G.mT, 3))
    assert first[2] == second[2]
    assert first[3][0].startswith("process 1: every module of the adapter needs a gradient")
    assert first[3][1].startswith("process 1: ZeroDivisionError")
    assert first[3] == second[3]
    assert (tmp_path / "cache.safetensors").is_file()

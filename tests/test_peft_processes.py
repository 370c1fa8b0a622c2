"""The PEFT route on several processes."""

import datetime
import os
from pathlib import Path

import torch
from peft_nets import QUIET, batch, best, close, config, net, peft, step_on
from torch import nn

from loraone_theory.integrations.peft import (
    LoRAOneConfig,
    get_lora_one_gradients,
    initialize_lora_one_weights,
    lora_pairs,
)

pytestmark = QUIET


def on_a_process(rank: int, folder: str) -> None:
    """One of two processes; what it found goes into a file."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(minutes=3),
    )
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
    torch.save(found, f"{folder}/{rank}.pt")
    # Without destructors: that of a gloo group holds the GIL and waits for its threads, which may
    # still be about to release the tensors of the last collective, and need the GIL for it.
    os._exit(0)


def test_two_processes_average_and_agree(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(on_a_process, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
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

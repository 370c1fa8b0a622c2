"""Gradients turned into triplets layer by layer, and sketched: against the whole ones."""

from pathlib import Path

import pytest
import torch
from peft_nets import QUIET, batch, close, config, net, peft, squared, step_on
from torch import Tensor, nn

from loraone_theory.integrations.peft import (
    LoRAOneConfig,
    SavedGradients,
    Triplets,
    get_lora_one_gradients,
    initialize_lora_one_weights,
    lora_pairs,
)
from loraone_theory.integrations.peft_reduce import Sketch

pytestmark = QUIET

# Triplets are kept in float32: a few roundings over the relative gaps, here above 0.05.
TRIPLETS = 1e-5


def dense(found: Triplets) -> Tensor:
    return (found.U * found.S[..., None, :]) @ found.V.mT


def initialised(gradients: object, r: int = 3) -> dict[str, Tensor]:
    wrapped = peft.get_peft_model(net(30, 40, 20), config(r=r))
    reports = initialize_lora_one_weights(wrapped, gradients, LoRAOneConfig("spectral"))
    assert all(report.kept_rank == r for report in reports.values())
    found = {pair.name: pair.factors.dense() for pair in lora_pairs(wrapped)}
    return found | {f"{n} energy": torch.tensor(report.energy) for n, report in reports.items()}


def estimated(*batches: tuple[Tensor, Tensor], **more: object) -> dict:
    model = net(30, 40, 20)
    return get_lora_one_gradients(model, config(), step_on(model, *batches), **more)


def test_triplets_of_one_pass_start_the_adapter_as_the_gradient_does() -> None:
    whole = estimated(batch(30, 20))
    reduced = estimated(batch(30, 20), reduce="svd")
    for name, G in whole.items():
        found = reduced[name]
        assert found.shape == G.shape
        assert found.S.shape == (6,)  # twice the rank
        U, S, Vh = torch.linalg.svd(G, full_matrices=False)
        assert close(dense(found), (U[:, :6] * S[:6]) @ Vh[:6], TRIPLETS)
        assert close(found.norm, G.norm())
    ours, theirs = initialised(reduced), initialised(whole)
    assert all(close(ours[name], M, TRIPLETS) for name, M in theirs.items())


@pytest.mark.parametrize("groups", [1, 2])
def test_groups_are_exact_for_several_batches(groups: int) -> None:
    batches = [batch(30, 20, seed) for seed in range(3)]
    whole = estimated(*batches)
    model, runs = net(30, 40, 20), []

    def train_step() -> None:
        runs.append(1)
        step_on(model, *batches)()

    reduced = get_lora_one_gradients(model, config(), train_step, reduce="svd", groups=groups)
    assert len(runs) == groups
    ours, theirs = initialised(reduced), initialised(whole)
    assert all(close(ours[name], M, TRIPLETS) for name, M in theirs.items())


def test_triplets_of_several_passes_are_refused() -> None:
    batches = [batch(30, 20, seed) for seed in range(3)]
    with pytest.raises(ValueError, match=r"do not add up .*got several parts for .*take groups="):
        estimated(*batches, reduce="svd")
    with pytest.raises(ValueError, match="groups goes with reduce='svd'"):
        estimated(*batches, groups=2)
    with pytest.raises(ValueError, match="keep must be >= 3; got keep=2"):
        estimated(*batches, reduce="svd", keep=2)
    few = estimated(batches[0], reduce="svd", keep=3)
    with pytest.raises(ValueError, match=r"as many triplets .*got 3 for 0 of rank 5.*larger keep"):
        initialised(few, r=5)


def test_groups_count_passes_that_reach_other_groups() -> None:
    """The second layer gets a gradient in one pass of two: half of it is its mean."""
    model = net(8, 10, 6)
    X, Y = batch(8, 6)

    def train_step() -> None:
        squared(model, X, Y).backward()
        model[0](X).square().sum().backward()

    whole = get_lora_one_gradients(model, config(), train_step)
    reduced = get_lora_one_gradients(model, config(), train_step, reduce="svd", groups=2, keep=8)
    assert all(close(dense(reduced[name]), G, TRIPLETS) for name, G in whole.items())


def decaying(rows: int, columns: int, rate: float, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    U, V = (torch.linalg.qr(torch.randn(n, n, generator=g)).Q for n in (rows, columns))
    k = min(rows, columns)
    return (U[:, :k] * torch.arange(1, k + 1) ** -rate) @ V[:, :k].mT


@pytest.mark.parametrize("rate", [0.5, 1.0, 2.0])
def test_sketches_keep_their_bound(rate: float) -> None:
    """The mean over sketches against the bound that is stated for it, and near the best part."""
    keep, passes = 8, 3
    parts = [decaying(90, 70, rate, seed) / passes for seed in range(passes)]
    total = sum(parts)
    S = torch.linalg.svdvals(total.double())
    errors, kept = [], []
    for seed in range(10):
        sketch = Sketch(keep=32, seed=seed)
        sketch.width = 32
        few = Sketch(keep=keep, seed=seed)
        for part in parts:
            sketch.add("x", part.clone())
            few.add("x", part.clone())
        found = sketch.finish(["x"], {"x": (90, 70)}, 1)["x"]
        errors.append(float((dense(found) - total).square().sum()))
        kept.append(float((dense(few.finish(["x"], {"x": (90, 70)}, 1)["x"]) - total).norm()))
        # ‖ΨG‖² has mean ‖G‖² and relative variance 2‖GGᵀ‖_F²/((2q + 1)‖G‖⁴).
        spread = float((2 * (S**4).sum() / 65).sqrt() / (S**2).sum())
        assert float(found.norm) ** 2 == pytest.approx(float((S**2).sum()), rel=5 * spread)
    tails = [float((S[rho:] ** 2).sum()) for rho in range(31)]
    bound = 2 * min((1 + rho / (32 - rho - 1)) * tail for rho, tail in enumerate(tails))
    assert sum(errors) / len(errors) <= bound
    best = float((S[keep:] ** 2).sum()) ** 0.5
    # The kept part's error is at most the best one's plus twice that of the sketch.
    assert max(kept) <= best + 2 * max(errors) ** 0.5
    assert max(kept) >= best * (1 - 1e-6)


def test_sketches_add_up_over_passes_and_start_the_adapter() -> None:
    """Of rank below the sketch's width a gradient is found exactly."""
    batches = [batch(30, 20, seed, n=4) for seed in range(3)]  # 12 samples: rank 12 at most
    whole = estimated(*batches)
    reduced = estimated(*batches, reduce="sketch", keep=3)
    ours, theirs = initialised(reduced), initialised(whole)
    for name, M in theirs.items():
        if "energy" not in name:
            assert close(ours[name], M, 1e-4)  # through a least-squares problem of width 32


def test_saved_gradients_are_read_one_by_one(tmp_path: Path) -> None:
    model, (X, Y) = net(30, 40, 20), batch(30, 20)
    for reduce in ("none", "svd", "sketch"):
        file = tmp_path / f"{reduce}.safetensors"
        step = step_on(model, (X, Y))
        first = get_lora_one_gradients(model, config(), step, cache_file=file, reduce=reduce)
        again = get_lora_one_gradients(
            model, config(), lambda: 1 / 0, cache_file=file, reduce=reduce
        )
        saved = SavedGradients(file)
        assert list(saved) == list(first) == list(again) == ["0", "2"]
        assert len(saved) == 2
        ours, theirs = initialised(saved), initialised(first)
        assert all(torch.equal(ours[name], M) for name, M in theirs.items())
        with pytest.raises(ValueError, match=f"reduce is '{reduce}.*' in it"):
            get_lora_one_gradients(
                model,
                config(),
                step,
                cache_file=file,
                reduce="svd" if reduce == "none" else "none",
            )


class Loads(dict):
    """Counts how often a gradient is asked for."""

    count = 0

    def __getitem__(self, name: str) -> Tensor:
        type(self).count += 1
        return super().__getitem__(name)


def test_a_lazy_mapping_is_asked_twice_for_each() -> None:
    """Once to check before anything is written, once to decompose."""
    gradients = Loads(estimated(batch(30, 20)))
    Loads.count = 0
    wrapped = peft.get_peft_model(net(30, 40, 20), config())
    initialize_lora_one_weights(wrapped, gradients)
    assert Loads.count <= 3 * len(gradients)


def test_whole_sums_are_divided_in_place() -> None:
    """A first gradient in float32 is taken over, and the mean is the same storage."""
    model = nn.Sequential(nn.Linear(64, 64, bias=False))
    seen: list[int] = []

    def train_step() -> None:
        for seed in range(2):
            loss = squared(model, *batch(64, 64, seed))
            leaf = model[0].weight
            leaf.register_hook(lambda g: seen.append(g.data_ptr()))
            loss.backward()

    gradients = get_lora_one_gradients(model, config("0"), train_step)
    assert gradients["0"].data_ptr() in seen

"""Alignment of a real model's factors with its one-step gradient, while it trains."""

import math
import sys
from pathlib import Path

import pytest
import torch
from peft_nets import peft, transformers
from tolerance import rounding
from torch import Tensor, nn

from loraone_theory import metrics, plotting
from loraone_theory.integrations.alignment import AlignmentTracker, layer_class
from loraone_theory.integrations.peft import (
    LoRAOneConfig,
    PairOptimizer,
    get_lora_one_gradients,
    initialize_lora_one_weights,
    lora_pairs,
)

# A frame is known to a few roundings over the relative gap of singular values, here above 0.01.
FLOAT32 = rounding(8, condition=1 / 0.01, dtype=torch.float32)


class Block(nn.Module):
    """Two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(12, 16), nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x).tanh())


class Stack(nn.Module):
    """Blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def setting() -> tuple[nn.Module, dict[str, Tensor], Tensor, Tensor]:
    model = Stack()
    rng = torch.Generator().manual_seed(1)
    X, Y = torch.randn(64, 12, generator=rng), torch.randn(64, 5, generator=rng)
    config = peft.LoraConfig(r=3, target_modules=["up", "down", "head"])
    gradients = get_lora_one_gradients(
        model, config, lambda: (model(X) - Y).square().mean().backward()
    )
    return peft.get_peft_model(model, config), gradients, X, Y


def test_classes_are_names_after_the_last_number() -> None:
    assert layer_class("blocks.2.down") == "down"
    assert layer_class("h.0.experts.13.mlp.up_proj") == "mlp.up_proj"
    assert layer_class("classifier") == "classifier"
    assert layer_class("0") == "0"


def test_records_are_the_sines_of_the_metrics() -> None:
    model, gradients, X, Y = setting()
    tracker = AlignmentTracker(model, gradients)
    optimizer = PairOptimizer(model, "adamw", lr=1e-2)
    tracker.step()
    for _ in range(2):
        optimizer.zero_grad()
        (model(X) - Y).square().mean().backward()
        optimizer.step()
        tracker.step()
    assert [r["step"] for r in tracker.records] == [0] * 7 + [1] * 7 + [2] * 7
    assert {r["class"] for r in tracker.records} == {"up", "down", "head"}
    assert all(math.isnan(r["right"]) for r in tracker.records[:7])  # B = 0 has no subspace
    last = {r["module"]: r for r in tracker.records[-7:]}
    for pair in lora_pairs(model):
        G, (A, B) = gradients[pair.name].mT, pair.factors
        left = metrics.subspace_sine(G, A.contiguous(), rank=3)
        right = metrics.subspace_sine(G, B.contiguous(), rank=3, side="right")
        assert last[pair.name]["left"] == pytest.approx(float(left), abs=FLOAT32)
        assert last[pair.name]["right"] == pytest.approx(float(right), abs=FLOAT32)
        assert 0 < last[pair.name]["right"] <= 1


def test_lora_one_starts_aligned_and_lora_does_not() -> None:
    model, gradients, _, _ = setting()
    tracker = AlignmentTracker(model, gradients)
    tracker.record(0)
    initialize_lora_one_weights(model, gradients, LoRAOneConfig("spectral"))
    tracker.record(1)
    sines = {step: [r for r in tracker.records if r["step"] == step] for step in (0, 1)}
    assert min(r["left"] for r in sines[0]) > 0.5
    assert max(r["left"] for r in sines[1]) < FLOAT32
    assert max(r["right"] for r in sines[1]) < FLOAT32


def test_a_smaller_rank_compares_leading_directions() -> None:
    model, gradients, _, _ = setting()
    initialize_lora_one_weights(model, gradients, LoRAOneConfig("spectral"))
    with torch.no_grad():  # the third direction is wrong, and the weakest
        for pair in lora_pairs(model):
            pair.down[2] = 1e-3
            pair.up[:, 2] = 1e-3
    whole, leading = AlignmentTracker(model, gradients), AlignmentTracker(model, gradients, rank=2)
    whole.record(0)
    leading.record(0)
    assert min(r["left"] for r in whole.records) > 0.1
    assert max(r["left"] for r in leading.records) < 0.05
    with pytest.raises(ValueError, match=r"got rank=4 with r=3 in blocks\.0\.up"):
        AlignmentTracker(model, gradients, rank=4)


def test_every_thins_the_records_and_summary_averages(tmp_path: Path) -> None:
    model, gradients, _, _ = setting()
    tracker = AlignmentTracker(model, gradients, every=2, classes=lambda name: name.split(".")[0])
    for _ in range(5):
        tracker.step()
    assert sorted({r["step"] for r in tracker.records}) == [0, 2, 4]
    means = tracker.summary()
    assert [(m["step"], m["class"], m["modules"]) for m in means[:2]] == [
        (0, "blocks", 6),
        (0, "head", 1),
    ]
    blocks = [r["left"] for r in tracker.records if r["class"] == "blocks" and r["step"] == 0]
    assert means[0]["left"] == pytest.approx(sum(blocks) / 6, rel=rounding(6, operations=2))
    curves = tracker.curves("left")
    assert curves["blocks"].tolist()[0] == [0, means[0]["left"]]
    assert curves["head"].shape == (3, 2)
    figure = tracker.plot("left")
    assert {line.get_label() for line in figure.axes[0].lines} == {"blocks", "head"}
    plotting.write(figure, tmp_path / "alignment.png")
    assert (tmp_path / "alignment.png").stat().st_size > 0


def test_training_is_not_disturbed() -> None:
    model, gradients, X, _ = setting()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    expected = model(X)
    AlignmentTracker(model, gradients).step()
    assert torch.equal(model(X), expected)
    for n, p in model.named_parameters():
        assert torch.equal(p, before[n])
        assert p.requires_grad == flags[n]
        assert p.grad is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_trainers_callback_records_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With marimo imported, transformers takes this for a notebook and asks for IPython.
    monkeypatch.delitem(sys.modules, "marimo", raising=False)
    model, gradients, X, Y = setting()

    class Regression(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return {"loss": (self.net(x) - labels).square().mean()}

    tracker = AlignmentTracker(model, gradients, every=2)
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        per_device_train_batch_size=16,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    rows = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
    optimizer = PairOptimizer(model, "scaled-adamw", lr=1e-2, damping=1e-6)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.5**t)
    transformers.Trainer(
        model=Regression(),
        args=arguments,
        train_dataset=rows,
        callbacks=[tracker.callback()],
        optimizers=(optimizer, schedule),
    ).train()
    assert sorted({r["step"] for r in tracker.records}) == [0, 2, 4]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 * 0.5**4, rel=rounding(4))
    assert any(bool(pair.up.any()) for pair in lora_pairs(model))


def test_bad_arguments_are_refused() -> None:
    model, gradients, _, _ = setting()
    with pytest.raises(ValueError, match="needs a gradient; got none for"):
        AlignmentTracker(model, {})
    with pytest.raises(ValueError, match="every must be >= 1"):
        AlignmentTracker(model, gradients, every=0)
    with pytest.raises(ValueError, match="adapter_name must be one of default"):
        AlignmentTracker(model, gradients, adapter_name="b")
    bad = {**gradients, "head": gradients["head"] * torch.nan}
    with pytest.raises(ValueError, match="must be finite"):
        AlignmentTracker(model, bad)
    part = AlignmentTracker(model, {"head": gradients["head"]})
    part.step()
    assert [r["module"] for r in part.records] == ["head"]


class ByHand(nn.Module):
    """A LoRA layer of one's own, with factors as the papers write them."""

    def __init__(self) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(5)
        self.W = nn.Linear(12, 9, bias=False)
        self.first = nn.Parameter(torch.randn(12, 3, generator=rng))
        self.second = nn.Parameter(torch.randn(3, 9, generator=rng))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_of_ones_own_and_all_angles(dtype: torch.dtype) -> None:
    model = nn.ModuleDict({"a": ByHand(), "rest": nn.Linear(3, 3), "b": ByHand()}).to(dtype)
    rng = torch.Generator().manual_seed(1)
    gradients = {name: torch.randn(9, 12, generator=rng) for name in ("a", "b")}
    tracker = AlignmentTracker(
        model,
        gradients,
        pair=lambda m: (m.first, m.second) if isinstance(m, ByHand) else None,
        all_angles=True,
    )
    tracker.step()
    with torch.no_grad():
        model["a"].first += 1
    tracker.step()
    for record in tracker.records:
        layer, G = model[record["module"]], gradients[record["module"]].mT
        if record["step"] == 0 and record["module"] == "a":
            continue  # has moved since
        for side, M in (("left", layer.first), ("right", layer.second)):
            expected = metrics.principal_angles(G, M.detach().float(), rank=3, side=side)
            assert record[f"{side}_angles"] == pytest.approx(expected.tolist(), abs=FLOAT32)
            assert record[side] == pytest.approx(math.sin(expected[0]), abs=FLOAT32)
    assert tracker.records[0]["left_angles"] != tracker.records[2]["left_angles"]
    with pytest.raises(ValueError, match="must find a pair in some module"):
        AlignmentTracker(model, gradients, pair=lambda m: None)
    with pytest.raises(ValueError, match=r"A \(d, r\) and B \(r, k\), or None; got shapes \(3, 12"):
        AlignmentTracker(
            model,
            gradients,
            pair=lambda m: (m.first.mT, m.second) if isinstance(m, ByHand) else None,
        )


def test_small_sines_are_plotted_on_a_logarithmic_axis() -> None:
    model, gradients, _, _ = setting()
    tracker = AlignmentTracker(model, gradients)
    with pytest.raises(ValueError, match="must be a record to plot; got none yet; call step"):
        tracker.plot("left")
    tracker.record(0)
    assert tracker.plot("left").axes[0].get_yscale() == "linear"
    initialize_lora_one_weights(model, gradients, LoRAOneConfig("spectral"))
    tracker.record(1)
    assert tracker.plot("left").axes[0].get_yscale() == "log"


def test_parameters_that_were_exchanged_are_read_anew() -> None:
    """PEFT puts new ones in their place where it loads an adapter with low_cpu_mem_usage."""
    model, gradients, _, _ = setting()
    tracker = AlignmentTracker(model, gradients)
    rng = torch.Generator().manual_seed(3)
    state = peft.get_peft_model_state_dict(model)
    state = {name: torch.randn(M.shape, generator=rng) for name, M in state.items()}
    peft.set_peft_model_state_dict(model, state, low_cpu_mem_usage=True)
    tracker.record(0)
    found = {record["module"]: record for record in tracker.records}
    for pair in lora_pairs(model):
        record, G = found.pop(pair.name), gradients[pair.name].mT
        expected = metrics.subspace_sine(G, pair.factors.A.detach().contiguous(), rank=3)
        assert record["left"] == pytest.approx(float(expected), abs=FLOAT32)
    model.add_adapter("other", peft.LoraConfig(r=3, target_modules=["head"]))
    model.set_adapter("other")
    model.delete_adapter("default")
    with pytest.raises(ValueError, match=r"lost its adapter 'default'; call lora_pairs again"):
        tracker.record(1)

"""This library's rules on PEFT's pairs: against simulate, through schedulers and checkpoints."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft_nets import peft
from tolerance import near
from torch import Tensor, nn

import loraone_theory as lt
from loraone_theory.integrations.peft import PairOptimizer, lora_pairs
from loraone_theory.methods.rules import RULES

# A few steps of batched products over widths of at most 24 and of Gram matrices, which damping or
# their factors keep to a condition number of 1e3.
PATHS = near(24, operations=4, condition=1e3, scale=1.0)

PEFTS = pytest.importorskip("peft.optimizers", reason="needs a PEFT that has optimisers")

# Hyper-parameters under which each rule makes steps of a similar size on the layer below.
SETTINGS: dict[str, dict[str, Any]] = {
    "adamw": {"lr": 0.01, "weight_decay": 0.1},
    "gd": {"lr": 0.1},
    "lora-muon": {"lr": 0.01, "damping": 1e-2},
    "lora-plus": {"lr": 0.05, "ratio": 4.0},
    "lora-pro": {"lr": 0.3},
    "lora-rite": {"lr": 0.01, "damping": 1e-2},
    "lora-pro-adamw": {"rule": "lora-pro", "lr": 0.01, "betas": (0.9, 0.999)},
    "lora-pro-pair": {
        "rule": "lora-pro",
        "lr": 0.01,
        "betas": (0.9, 0.999),
        "moments": "pair",
    },
    "momentum": {"lr": 0.03, "beta": 0.8},
    "muon": {"lr": 0.01, "beta": 0.5},
    "preconditioned": {"lr": 0.3, "damping": 1e-2},
    "scaled-adamw": {"lr": 0.01, "damping": 1e-2, "order": "peft"},
    "scaled-adamw-released": {
        "rule": "scaled-adamw",
        "lr": 0.01,
        "damping": 1e-2,
        "order": "released",
    },
    "spectral-scaled": {"lr": 0.3, "damping": 1e-2},
    "whitened": {"lr": 0.3, "damping": 1e-2},
}
STEPS = 20
# In units of rounding: the steps contract, so few of their roundings survive. 9.5e-7 in float32.
ROUNDINGS = 8


def test_every_rule_is_here() -> None:
    assert {s.get("rule", name) for name, s in SETTINGS.items()} == {
        name for name, make in RULES.items() if make(0.1).advance is None
    }


def layer(dtype: torch.dtype) -> tuple[lt.LinearProblem, lt.Factors, nn.Module, Tensor, Tensor]:
    """A linear problem with a given start, and the same as a layer with a pair and data."""
    rng = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64).to(dtype)

    d, k, r, alpha = 8, 6, 2, 3.0
    X, W = draw(200, d), draw(d, k)
    shift = lt.Factors(torch.linalg.qr(draw(d, 2)).Q, torch.linalg.qr(draw(k, 2)).Q.mT)
    problem = lt.LinearProblem.from_data(X, shift=shift, pretrained=W)
    # Near enough that every rule comes closer, so that roundings are not amplified.
    start = lt.Factors(shift.A + 0.2 * draw(d, r), shift.B + 0.2 * draw(r, k))
    model = nn.Sequential(nn.Linear(d, k, bias=False, dtype=dtype))
    with torch.no_grad():
        model[0].weight.copy_(W.mT)
    config = peft.LoraConfig(r=r, lora_alpha=alpha, target_modules=["0"])
    wrapped = peft.get_peft_model(model, config)
    (pair,) = lora_pairs(wrapped)
    with torch.no_grad():
        pair.down.copy_(start.A.mT)
        pair.up.copy_(start.B.mT)
    return problem, start, wrapped, X, X @ (W + shift.dense())


def train(model: nn.Module, optimizer: PairOptimizer, X: Tensor, Y: Tensor, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        ((model(X) - Y).square().sum() / (2 * len(X))).backward()
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SETTINGS)
def test_one_layer_follows_simulate(name: str, dtype: torch.dtype) -> None:
    problem, start, model, X, Y = layer(dtype)
    settings = {"rule": name, **SETTINGS[name]}
    train(model, PairOptimizer(model, **settings), X, Y, STEPS)
    rule, rate = settings.pop("rule"), settings.pop("lr")
    damping = settings.pop("damping", 0.0)
    method = lt.methods.lora(scale=1.5).trained_by(rule, **settings)
    run = lt.simulate(
        problem,
        method,
        rank=2,
        learning_rate=rate,
        damping=damping,
        steps=STEPS,
        initial=start,
        reduce="never",
    )
    (pair,) = lora_pairs(model)
    for found, expected, before in zip(pair.factors, run.final, start, strict=True):
        expected = expected.reshape(found.shape)
        tolerance = ROUNDINGS * torch.finfo(dtype).eps
        assert (found - expected).norm() <= tolerance * expected.norm()
        assert (expected - before).norm() > 0.05 * expected.norm()  # it has moved


def test_schedulers_and_hand_edits_take_effect() -> None:
    _, _, model, X, Y = layer(torch.float64)
    twin = copy.deepcopy(model)
    optimizer = PairOptimizer(model, "scaled-adamw", lr=0.02, damping=1e-2)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + t))
    by_hand = PairOptimizer(twin, "scaled-adamw", lr=1.0, damping=1.0)
    (group,) = by_hand.param_groups
    group["damping"] = 1e-2
    for t in range(5):
        train(model, optimizer, X, Y, 1)
        scheduler.step()
        group["lr"] = 0.02 * (1 / (1 + t))
        train(twin, by_hand, X, Y, 1)
    for mine, other in zip(lora_pairs(model)[0].factors, lora_pairs(twin)[0].factors, strict=True):
        assert torch.equal(mine, other)
    cyclic = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.1, total_steps=9, cycle_momentum=False
    )
    train(model, optimizer, X, Y, 1)  # schedulers leave keys of their own in the groups
    cyclic.step()
    assert optimizer.param_groups[0]["lr"] == cyclic.get_last_lr()[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_checkpoint_continues_the_run(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    _, _, model, X, Y = layer(torch.float32)
    model, X, Y = model.to(dtype), X.to(dtype), Y.to(dtype)
    settings = {"rule": name, **SETTINGS[name]}
    optimizer = PairOptimizer(model, **settings)
    train(model, optimizer, X, Y, 3)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    twin = copy.deepcopy(model)
    again = PairOptimizer(twin, **{**settings, "lr": 7.0})
    again.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    train(model, optimizer, X, Y, 3)
    train(twin, again, X, Y, 3)
    for mine, other in zip(lora_pairs(model)[0].factors, lora_pairs(twin)[0].factors, strict=True):
        assert torch.equal(mine, other)
        assert bool(torch.isfinite(mine).all())


class WithHead(nn.Module):
    """Two adapted layers and a trainable head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(x).tanh()).tanh())


def headed() -> tuple[nn.Module, Tensor, Tensor]:
    config = peft.LoraConfig(r=2, target_modules=["one", "two"], modules_to_save=["head"])
    rng = torch.Generator().manual_seed(2)
    model = peft.get_peft_model(WithHead(), config)
    return model, torch.randn(64, 6, generator=rng), torch.randn(64, 3, generator=rng)


def test_others_train_under_their_own_rule() -> None:
    model, X, Y = headed()
    with pytest.raises(ValueError, match=r"the model also trains .*head.*weight.*others="):
        PairOptimizer(model, "scaled-adamw")
    optimizer = PairOptimizer(
        model, "gd", lr=0.0, others={"rule": "adamw", "lr": 1e-2, "weight_decay": 0.1}
    )
    head = [p for n, p in model.named_parameters() if p.requires_grad and "head" in n]
    twin = copy.deepcopy(model)
    theirs = [p for n, p in twin.named_parameters() if p.requires_grad and "head" in n]
    reference = torch.optim.AdamW(theirs, lr=1e-2, weight_decay=0.1)
    for _ in range(5):
        train(model, optimizer, X, Y, 1)
        reference.zero_grad()
        ((twin(X) - Y).square().sum() / (2 * len(X))).backward()
        reference.step()
    assert len(head) == 2
    for p, q in zip(head, theirs, strict=True):
        # Five steps of AdamW whose entries are quotients of gradients over the batch.
        once = near(len(X), operations=5, scale=1.0, dtype=p.dtype)
        torch.testing.assert_close(p, q, **once)
    for pair, start in zip(lora_pairs(model), lora_pairs(twin), strict=True):
        assert torch.equal(pair.down, start.down)


def test_groups_have_their_own_rules_and_rates() -> None:
    model, X, Y = headed()
    one, two = lora_pairs(model)
    head = [p for n, p in model.named_parameters() if p.requires_grad and "head" in n]
    groups = [
        {"pairs": [one], "lr": 0.0},
        {"pairs": [two], "rule": "lora-plus", "ratio": 2.0},
        {"params": head, "rule": "momentum", "beta": 0.5},
    ]
    optimizer = PairOptimizer(groups, "preconditioned", lr=0.05, damping=1e-2)
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.05, 0.05]
    assert [group.get("damping") for group in optimizer.param_groups] == [1e-2, None, None]
    before = [p.detach().clone() for p in (one.down, one.up, two.up, *head)]
    train(model, optimizer, X, Y, 2)
    moved = [
        not torch.equal(p, q)
        for p, q in zip((one.down, one.up, two.up, *head), before, strict=True)
    ]
    assert moved == [False, False, True, True, True]


def test_pairs_without_gradients_are_left_alone() -> None:
    model, X, Y = headed()
    one, two = lora_pairs(model)
    optimizer = PairOptimizer([one, two], "gd", lr=0.1)
    train(model, optimizer, X, Y, 1)
    before = one.up.detach().clone()
    optimizer.zero_grad()
    two.up.grad = torch.ones_like(two.up)
    held, other = two.up.detach().clone(), two.down.detach().clone()
    loss = optimizer.step(lambda: torch.tensor(3.0))
    assert loss == 3.0
    assert torch.equal(one.up, before)
    assert torch.equal(two.up, held - 0.1)
    assert torch.equal(two.down, other)


@pytest.mark.parametrize("name", SETTINGS)
def test_layers_of_one_shape_are_advanced_as_if_alone(name: str) -> None:
    """Also where one of them joins a step late, so that their step numbers differ."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(6, 6) for _ in range(3)), nn.Linear(6, 4)).double()
    config = peft.LoraConfig(r=2, target_modules=["0", "1", "2", "3"], init_lora_weights=False)
    model = peft.get_peft_model(model, config)
    twin = copy.deepcopy(model)
    settings = {"rule": name, **SETTINGS[name]}
    settings["lr"] /= 10
    together = PairOptimizer(model, **settings)
    alone = [PairOptimizer([pair], **settings) for pair in lora_pairs(twin)]
    rng = torch.Generator().manual_seed(1)
    X, Y = (torch.randn(64, n, generator=rng, dtype=torch.float64) for n in (6, 4))
    for t in range(4):
        for each, optimizers in ((model, [together]), (twin, alone)):
            for p in each.parameters():
                p.grad = None
            (each(X) - Y).square().mean().backward()
            if t == 0:
                for p in (lora_pairs(each)[1].down, lora_pairs(each)[1].up):
                    p.grad = None
            for optimizer in optimizers:
                optimizer.step()
    # Batched products and eigendecompositions round in another order.
    for mine, other in zip(lora_pairs(model), lora_pairs(twin), strict=True):
        for found, expected in zip(mine.factors, other.factors, strict=True):
            torch.testing.assert_close(found, expected, **PATHS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "precondition"}, "rule must be one of .*; did you mean 'preconditioned'"),
        ({"rule": "adalora"}, "rule must be one of"),
        ({"rule": "gd", "damping": 1.0}, "hyper-parameter of 'gd' must be"),
        ({"rule": "lora-pro", "scale": 2.0}, "hyper-parameter of 'lora-pro' must be one of"),
        ({"rule": "flow"}, "'flow' asks for gradients at points of its own"),
        ({"lr": -1.0}, "lr must be finite and >= 0"),
        ({"others": {"rule": "lora-pro"}}, "rule 'lora-pro' needs pairs"),
        ({"others": {"rule": "adamw", "bets": (0.9, 0.9)}}, "did you mean 'betas'"),
        ({"adapter_name": "other"}, "adapter_name must be one of default"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    model, _, _ = headed()
    with pytest.raises(ValueError, match=message):
        PairOptimizer(model, **{"others": {"rule": "adamw"}, **settings})


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="must be something to train"):
        PairOptimizer([])
    model, _, _ = headed()
    with pytest.raises(ValueError, match="others goes with a model"):
        PairOptimizer(lora_pairs(model), others={"rule": "adamw"})


def test_gradients_that_are_not_finite_change_nothing() -> None:
    model, X, Y = headed()
    optimizer = PairOptimizer(model, "gd", lr=0.1, others={"rule": "gd"})
    ((model(X) - Y).square().mean()).backward()
    lora_pairs(model)[1].up.grad[0, 0] = torch.nan
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    with pytest.raises(ValueError, match=r"finite; got NaN or infinite ones in 1 of 6 tensors; no"):
        optimizer.step()
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


@pytest.mark.parametrize(
    ("rule", "key", "index"),
    [("adamw", "betas", 0), ("scaled-adamw", "betas", 0), ("momentum", "momentum", None)],
)
def test_schedulers_of_momenta_set_what_the_rule_reads(
    rule: str, key: str, index: int | None
) -> None:
    """One cycle on ours and, with the momentum set by hand at each step, on a twin."""
    _, _, model, X, Y = layer(torch.float64)
    twin = copy.deepcopy(model)
    head = {"rule": "gd"}  # reads no momentum and is scheduled all the same
    with_head = nn.ModuleList([model, nn.Linear(2, 2)])
    optimizer = PairOptimizer(with_head, rule, lr=0.01, others=head)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=6)
    by_hand = PairOptimizer(twin, rule, lr=0.01)
    seen = []
    for _ in range(5):
        (group, _) = optimizer.param_groups
        by_hand.param_groups[0]["lr"] = group["lr"]
        value = group[key] if index is None else group[key][index]
        seen.append(value)
        own = by_hand.param_groups[0]
        own[key] = value if index is None else (value, *own[key][1:])
        train(model, optimizer, X, Y, 1)
        train(twin, by_hand, X, Y, 1)
        scheduler.step()
    assert len(set(seen)) == 5
    for mine, other in zip(lora_pairs(model)[0].factors, lora_pairs(twin)[0].factors, strict=True):
        assert torch.equal(mine, other)


def test_rules_without_momentum_say_so_to_schedulers() -> None:
    _, _, model, _, _ = layer(torch.float64)
    optimizer = PairOptimizer(model, "preconditioned", damping=1e-2)
    with pytest.raises(ValueError, match="must support momentum or beta1"):
        torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=6)
    torch.optim.lr_scheduler.CyclicLR(optimizer, 0.1, 0.2, cycle_momentum=False)


class Words(nn.Module):
    """An embedding and a layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.out = nn.Embedding(5, 6), nn.Linear(6, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.words(ids))


@pytest.mark.parametrize("dora", [False, True])
def test_embeddings_and_variants_go_to_the_others(dora: bool) -> None:
    targets = ["out"] if dora else ["words", "out"]
    config = peft.LoraConfig(r=2, target_modules=targets, use_dora=dora)
    model = peft.get_peft_model(Words(), config)
    rule = "gd" if dora else "preconditioned"
    with pytest.raises(ValueError, match=r"the model also trains .*others="):
        PairOptimizer(model, rule)
    optimizer = PairOptimizer(model, rule, lr=0.1, others={"rule": "adamw", "lr": 1e-2})
    pairs, others = (group["params"] for group in optimizer.param_groups)
    assert (len(pairs), len(others)) == ((0, 3) if dora else (2, 2))
    twin = copy.deepcopy(model)
    theirs = [p for p in twin.parameters() if p.requires_grad]
    theirs = theirs if dora else theirs[:2]
    reference = torch.optim.AdamW(theirs, lr=1e-2, weight_decay=0.0)
    ids = torch.arange(5)
    for each, its in ((model, optimizer), (twin, reference)):
        each(ids).square().sum().backward()
        its.step()
    for p, q in zip(others, theirs, strict=True):
        # One step of AdamW, whose entries are quotients of a gradient and its size.
        once = near(24, operations=4, scale=1.0, dtype=p.dtype)
        torch.testing.assert_close(p, q, **once)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "adamw", "betas": (2.0, 2.0)}, "betas"),
        ({"rule": "preconditioned", "damping": -1.0}, "damping"),
        ({"rule": "momentum", "beta": 2.0}, "beta"),
        ({"rule": "lora-plus", "ratio": -4.0}, "ratio"),
        ({"rule": "scaled-adamw", "eps": -1e-8}, "eps"),
        ({"rule": "scaled-adamw", "weight_decay": float("nan")}, "weight_decay"),
        ({"rule": "scaled-adamw", "order": "peff"}, "order must be one of released, peft"),
    ],
)
def test_bad_values_are_refused_when_it_is_built(settings: dict[str, Any], message: str) -> None:
    _, _, model, _, _ = layer(torch.float64)
    with pytest.raises(ValueError, match=message):
        PairOptimizer(model, **settings)


def test_moments_of_whole_weights_are_announced() -> None:
    model = nn.Sequential(nn.Linear(256, 200, bias=False))
    model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["0"]))
    with pytest.warns(UserWarning, match=r"keeps 0\.41 MB for 0\.00365 MB .*moments='pair'"):
        optimizer = PairOptimizer(model, "lora-pro", betas=(0.9, 0.999))
    model(torch.ones(1, 256)).square().sum().backward()
    optimizer.step()
    tensors = [x for s in optimizer.state.values() for x in s.values() if isinstance(x, Tensor)]
    assert max(x.numel() for x in tensors) == 256 * 200
    pair = PairOptimizer(model, "lora-pro", betas=(0.9, 0.999), moments="pair")
    pair.step()
    tensors = [x for s in pair.state.values() for x in s.values() if isinstance(x, Tensor)]
    assert max(x.numel() for x in tensors) == 2 * 256


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moments_of_the_pair_are_adam_on_the_projected_steps(dtype: torch.dtype) -> None:
    """Longhand: g^A, g^B as the rule without betas steps by them, then torch's Adam on those."""
    _, _, model, X, Y = layer(dtype)
    twin = copy.deepcopy(model)
    ours = PairOptimizer(model, "lora-pro", lr=0.01, betas=(0.9, 0.99), moments="pair")
    (pair,) = lora_pairs(twin)
    adam = torch.optim.AdamW([pair.down, pair.up], lr=0.01, betas=(0.9, 0.99), weight_decay=0.0)
    for _ in range(3):
        train(model, ours, X, Y, 1)
        probe = copy.deepcopy(twin)
        train(probe, PairOptimizer(probe, "lora-pro", lr=1.0), X, Y, 1)
        (moved,) = lora_pairs(probe)
        pair.down.grad, pair.up.grad = (
            (pair.down - moved.down).detach(),
            (pair.up - moved.up).detach(),
        )
        adam.step()
    # A step of length one and its difference lose a digit of the gradient.
    for mine, other in zip(lora_pairs(model)[0].factors, pair.factors, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e3 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize(
    ("settings", "make"),
    [
        (
            {"rule": "scaled-adamw", "order": "peft", "damping": 1e-2},
            lambda m: PEFTS.create_riemannian_optimizer(
                m, torch.optim.AdamW, lr=0.01, weight_decay=0.1, reg=1e-2
            ),
        ),
        (
            {"rule": "adamw", "ratio": 4.0},
            lambda m: PEFTS.create_loraplus_optimizer(
                m,
                torch.optim.AdamW,
                lr=0.01,
                loraplus_lr_ratio=4.0,
                loraplus_weight_decay=0.1,
            ),
        ),
    ],
)
def test_where_they_coincide_the_steps_are_those_of_peft(settings: Any, make: Any) -> None:
    _, _, model, X, Y = layer(torch.float32)
    twin = copy.deepcopy(model)
    ours, theirs = PairOptimizer(model, lr=0.01, weight_decay=0.1, **settings), make(twin)
    for _ in range(10):
        train(model, ours, X, Y, 1)
        train(twin, theirs, X, Y, 1)
    for mine, other in zip(lora_pairs(model)[0].factors, lora_pairs(twin)[0].factors, strict=True):
        # The steps contract, so few of their roundings survive.
        allowed = ROUNDINGS * torch.finfo(torch.float32).eps
        assert (mine - other).norm() <= allowed * other.norm()


# --- groups that come later, checkpoints of something else


@pytest.mark.parametrize("rule", ["gd", "scaled-adamw", "momentum"])
def test_groups_that_come_later_are_as_those_from_the_start(rule: str) -> None:
    """Layers unfrozen one after the other, the second by the settings of the first."""
    model, X, Y = headed()
    twin = copy.deepcopy(model)
    more = {
        "gd": {},
        "scaled-adamw": {"damping": 1e-3, "betas": (0.8, 0.9)},
        "momentum": {"beta": 0.5},
    }
    head = {"rule": "adamw", "lr": 1e-2, "weight_decay": 0.1}
    one, two = lora_pairs(model)
    optimizer = PairOptimizer([one], rule, lr=1e-3, **more[rule])
    optimizer.add_param_group({"pairs": [two]})
    trainable = [p for n, p in model.named_parameters() if p.requires_grad and "head" in n]
    optimizer.add_param_group({"params": trainable, **head})
    reference = PairOptimizer(twin, rule, lr=1e-3, others=head, **more[rule])
    train(model, optimizer, X, Y, 3)
    train(twin, reference, X, Y, 3)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        # Three steps of quotients of gradients; pairs of one shape are batched in one of them.
        torch.testing.assert_close(p, q, **near(64, operations=6, scale=1.0, dtype=p.dtype))


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"rule": "gd"}, "must have 'pairs' or 'params'; got 'rule'"),
        ({"params": [nn.Parameter(torch.ones(2, 2))]}, "rule 'preconditioned' needs pairs"),
        ({"params": [nn.Parameter(torch.ones(2, 2))], "rule": "adam"}, "did you mean 'adamw'"),
        ({"params": [nn.Parameter(torch.ones(2))], "rule": "gd", "damping": 1.0}, "of 'gd' must"),
    ],
)
def test_bad_groups_are_refused_when_they_come(group: dict[str, Any], message: str) -> None:
    model, _, _ = headed()
    optimizer = PairOptimizer(lora_pairs(model), damping=1e-2)
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 1


def test_checkpoints_of_something_else_are_refused() -> None:
    _, _, model, X, Y = layer(torch.float64)
    own = PairOptimizer(model, "adamw", lr=0.01)
    train(model, own, X, Y, 1)
    before = copy.deepcopy(own.state_dict())
    other = PairOptimizer(model, "scaled-adamw", lr=0.01, damping=1e-2)
    torchs = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    for saved, told in ((other.state_dict(), "scaled-adamw"), (torchs.state_dict(), "no rule")):
        with pytest.raises(ValueError, match=f"of the same rules, group.*; got {told} for adamw"):
            own.load_state_dict(saved)
    after = own.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert after["state"].keys() == before["state"].keys()


def test_a_checkpoint_leaves_the_scale_of_the_model() -> None:
    """LoRA-Pro divides by s², so that the scale of another alpha would change its steps."""
    _, _, model, _, _ = layer(torch.float64)
    first = PairOptimizer(model, "lora-pro", lr=0.1)
    other = peft.get_peft_model(
        nn.Sequential(nn.Linear(8, 6, bias=False, dtype=torch.float64)),
        peft.LoraConfig(r=2, lora_alpha=8.0, target_modules=["0"]),
    )
    second = PairOptimizer(other, "lora-pro", lr=7.0)
    second.load_state_dict(first.state_dict())
    (group,) = second.param_groups
    assert group["lr"] == 0.1
    assert group["scales"] == [lora_pairs(other)[0].scale] == [4.0]


def test_checkpoints_of_other_ranks_are_refused() -> None:
    made = []
    for rank in (2, 3):
        model = peft.get_peft_model(WithHead(), peft.LoraConfig(r=rank, target_modules=["one"]))
        optimizer = PairOptimizer(model, "adamw", lr=1e-3)
        model(torch.ones(4, 6)).square().sum().backward()
        optimizer.step()
        made.append(optimizer)
    first, second = made
    before = copy.deepcopy(second.state_dict())
    with pytest.raises(ValueError, match="same shapes; got moments of others; adapt the model as"):
        second.load_state_dict(first.state_dict())
    for key, held in second.state_dict()["state"].items():
        for name, leaf in held.items():
            assert torch.equal(torch.as_tensor(leaf), torch.as_tensor(before["state"][key][name]))


def test_sparse_gradients_are_refused_before_anything_moves() -> None:
    model = Words()
    model.words = nn.Embedding(5, 6, sparse=True)
    config = peft.LoraConfig(r=2, target_modules=["out"], modules_to_save=["words"])
    model = peft.get_peft_model(model, config)
    optimizer = PairOptimizer(model, "gd", lr=0.1, others={"rule": "adamw", "lr": 1e-2})
    model(torch.arange(5)).square().sum().backward()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    with pytest.raises(
        ValueError, match="must be dense; got sparse ones in 1 of 3 tensors; nothing"
    ):
        optimizer.step()
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


# --- what groups are given as, and settings that change


def test_parameters_of_a_group_may_come_from_an_iterator() -> None:
    """It can be gone through once only, and every check of a group goes through it."""
    head = nn.Linear(3, 3)
    for given, count in ((head.parameters(), 2), (iter([head.bias]), 1), (head.weight, 1)):
        optimizer = PairOptimizer([{"params": given, "rule": "adamw"}])
        assert [len(group["params"]) for group in optimizer.param_groups] == [count]


@pytest.mark.parametrize(
    ("group", "error", "message"),
    [
        ({"rule": "gd"}, ValueError, "must have 'pairs' or 'params'; got 'rule'"),
        ({"params": [("name", nn.Parameter(torch.ones(2)))]}, TypeError, "without their names"),
        ({"params": {nn.Parameter(torch.ones(2))}}, TypeError, "in an order; got a set"),
        ({"params": [nn.Parameter(torch.ones(2) * 1j)]}, ValueError, "real; got complex"),
        ({"pairs": [nn.Parameter(torch.ones(2))]}, TypeError, "each of pairs must be a Pair"),
        ({"params": [nn.Parameter(torch.ones(2))], "ratio": 4.0}, ValueError, "for other param"),
    ],
)
@pytest.mark.parametrize("later", [False, True])
def test_groups_of_something_else_are_refused(
    group: Any, error: type[Exception], message: str, later: bool
) -> None:
    optimizer = PairOptimizer(lora_pairs(headed()[0]), "adamw")
    take = optimizer.add_param_group if later else lambda group: PairOptimizer([group], "adamw")
    with pytest.raises(error, match=message):
        take(group)
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("later", [False, True])
def test_adams_means_of_one_group_are_not_those_of_another(later: bool) -> None:
    """LoRA-Pro without betas keeps no moments, whatever the head is trained by."""
    model, X, Y = headed()
    twin = copy.deepcopy(model)
    head = [p for n, p in model.named_parameters() if p.requires_grad and "head" in n]
    adam, pro = {"rule": "adamw", "params": head}, {"rule": "lora-pro", "damping": 1e-2}
    groups = [adam, {"pairs": lora_pairs(model), **pro}]
    optimizer = PairOptimizer(groups[: 1 if later else 2], lr=0.1)
    if later:
        optimizer.add_param_group(groups[1])
    reference = PairOptimizer(lora_pairs(twin), lr=0.1, **pro)
    for each, its in ((model, optimizer), (twin, reference)):
        train(each, its, X, Y, 1)
    for mine, other in zip(lora_pairs(model), lora_pairs(twin), strict=True):
        assert torch.equal(mine.down, other.down)
        assert torch.equal(mine.up, other.up)
    with pytest.raises(ValueError, match="must support momentum or beta1"):
        torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=6)


def test_the_ratio_is_that_of_pairs() -> None:
    """What is outside the pairs has no B, and is trained as torch's AdamW does at its own rate."""
    model, X, Y = headed()
    twin = copy.deepcopy(model)
    head, theirs = (
        [p for n, p in each.named_parameters() if p.requires_grad and "head" in n]
        for each in (model, twin)
    )
    optimizer = PairOptimizer(model, "adamw", lr=1e-3, ratio=16.0, others={"rule": "adamw"})
    assert [group["ratio"] for group in optimizer.param_groups] == [16.0, 1.0]
    reference = torch.optim.AdamW(theirs, lr=1e-3, weight_decay=0.0)
    for each, its in ((model, optimizer), (twin, reference)):
        train(each, its, X, Y, 1)
    for p, q in zip(head, theirs, strict=True):
        # One step of AdamW, whose entries are quotients of gradients over the batch.
        torch.testing.assert_close(p, q, **near(len(X), operations=1, scale=1e-3, dtype=p.dtype))


BAD_EDITS: list[tuple[str, Any, str]] = [
    ("lr", float("nan"), "learning_rate"),
    ("lr", -1.0, "learning_rate"),
    ("betas", (1.0, 0.9), "betas"),
    ("eps", 0.0, "eps"),
    ("rule", "adam", "rule must be one of"),
    ("rule", "flow", "asks for gradients at points of its own"),
    ("rule", "preconditioned", "needs pairs"),
    ("rule", "gd", "keep the state that it has"),
]


@pytest.mark.parametrize(("key", "value", "message"), BAD_EDITS)
def test_bad_edits_are_refused_before_anything_moves(key: str, value: Any, message: str) -> None:
    """In the second group, while the first could make its step."""
    model, X, Y = headed()
    optimizer = PairOptimizer(model, "gd", lr=0.1, others={"rule": "adamw"})
    train(model, optimizer, X, Y, 1)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    held = copy.deepcopy(optimizer.state_dict()["state"])
    optimizer.param_groups[1][key] = value
    with pytest.raises(ValueError, match=message):
        optimizer.step()
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    for index, entries in optimizer.state_dict()["state"].items():
        for name, leaf in entries.items():
            assert torch.equal(torch.as_tensor(leaf), torch.as_tensor(held[index][name]))


@pytest.mark.parametrize(
    ("settings", "edit"),
    [
        ({"rule": "lora-pro"}, {"betas": (0.9, 0.99)}),
        ({"rule": "lora-pro", "betas": (0.9, 0.99)}, {"betas": None}),
        ({"rule": "lora-pro", "betas": (0.9, 0.99)}, {"moments": "pair"}),
        ({"rule": "lora-rite"}, {"escaped_mass": True}),
        ({"rule": "adamw"}, {"rule": "scaled-adamw"}),
        ({"rule": "momentum"}, {"rule": "gd"}),
    ],
)
def test_edits_that_need_another_state_are_refused(
    settings: dict[str, Any], edit: dict[str, Any]
) -> None:
    _, _, model, X, Y = layer(torch.float64)
    optimizer = PairOptimizer(model, lr=1e-3, **settings)
    train(model, optimizer, X, Y, 1)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.param_groups[0].update(edit)
    with pytest.raises(ValueError, match=r"keep the state that it has; .*; nothing was changed"):
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


# In pairs, and as other parameters, whose layout in memory is another.
FOLLOWS = [(name, False) for name in SETTINGS] + [(n, True) for n in ("adamw", "momentum", "muon")]


@pytest.mark.parametrize(("name", "others"), FOLLOWS)
def test_the_state_follows_parameters_to_another_dtype(name: str, others: bool) -> None:
    """Two steps in float32 and two in float64, in place and from a checkpoint of the first two."""
    settings = {"rule": name, **SETTINGS[name]}
    _, _, model, X, Y = layer(torch.float32)

    def made(model: nn.Module) -> PairOptimizer:
        params = [p for p in model.parameters() if p.requires_grad]
        return PairOptimizer([{"params": params}] if others else model, **settings)

    optimizer = made(model)
    train(model, optimizer, X, Y, 2)
    twin = copy.deepcopy(model).double()
    again = made(twin)
    again.load_state_dict(optimizer.state_dict())
    model.double()
    for each, its in ((model, optimizer), (twin, again)):
        train(each, its, X.double(), Y.double(), 2)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert p.dtype == torch.float64
        assert torch.equal(p, q)
    kept = [x for s in optimizer.state.values() for x in s.values() if isinstance(x, Tensor)]
    assert all(x.dtype == torch.float64 for x in kept if x.is_floating_point())


def test_moments_of_as_many_entries_in_another_shape_are_refused() -> None:
    """A rank of 2 at a width of 8 and one of 4 at a width of 4."""
    made = []
    for width, rank in ((8, 2), (4, 4)):
        model = nn.Sequential(nn.Linear(width, width))
        model = peft.get_peft_model(model, peft.LoraConfig(r=rank, target_modules=["0"]))
        optimizer = PairOptimizer(model, "adamw")
        model(torch.ones(4, width)).square().sum().backward()
        optimizer.step()
        made.append(optimizer)
    with pytest.raises(ValueError, match="same shapes; got moments of others"):
        made[1].load_state_dict(made[0].state_dict())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("state"), "must have 'state' and 'param_groups'; got none of state"),
        (lambda s: s["param_groups"][0].pop("params"), "must have 'params'"),
        (lambda s: s["param_groups"][0].pop("lr"), "must have 'lr'"),
        (lambda s: s["param_groups"][0].update(lr=float("nan")), "learning_rate of rule 'adamw'"),
        (lambda s: s["param_groups"][0].update(betas=(1.0, 0.9)), "betas"),
        (lambda s: s["state"].update({0: {"step": 1, "exp_avg": torch.zeros(2)}}), "moments of"),
        (lambda s: s["state"].pop(0), "moments of others"),
        (lambda s: s["state"][0].update({"0": torch.ones(())}), "moments of others"),
    ],
)
def test_checkpoints_that_are_spoilt_change_nothing(spoil: Any, message: str) -> None:
    _, _, model, X, Y = layer(torch.float64)
    optimizer = PairOptimizer(model, "adamw", lr=0.01)
    train(model, optimizer, X, Y, 1)
    before = copy.deepcopy(optimizer.state_dict())
    saved = copy.deepcopy(before)
    spoil(saved)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(saved)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for index, entries in before["state"].items():
        for name, leaf in entries.items():
            assert torch.equal(torch.as_tensor(leaf), torch.as_tensor(after["state"][index][name]))


@pytest.mark.parametrize("betas", [None, (0.8, 0.9)])
def test_a_checkpoint_brings_its_settings_and_their_state(betas: Any) -> None:
    """Into an optimiser with the other of LoRA-Pro's two forms, whose state is another."""
    _, _, model, X, Y = layer(torch.float64)
    first = PairOptimizer(model, "lora-pro", lr=0.01, betas=betas)
    train(model, first, X, Y, 2)
    twin = copy.deepcopy(model)
    second = PairOptimizer(twin, "lora-pro", lr=1.0, betas=(0.9, 0.99) if betas is None else None)
    second.load_state_dict(first.state_dict())
    assert second.param_groups[0]["betas"] == betas
    for each, optimizer in ((model, first), (twin, second)):
        train(each, optimizer, X, Y, 2)
    for mine, other in zip(lora_pairs(model)[0].factors, lora_pairs(twin)[0].factors, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("copied", [False, True])
def test_models_that_come_later_are_asked_for_the_same_adapter(copied: bool) -> None:
    models = []
    for _ in range(2):
        model, _, _ = headed()
        model.add_adapter("second", peft.LoraConfig(r=3, target_modules=["one", "two"]))
        model.set_adapter("second")
        models.append(model)
    optimizer = PairOptimizer([{"pairs": models[0]}], "gd", adapter_name="second")
    optimizer = copy.deepcopy(optimizer) if copied else optimizer
    optimizer.add_param_group({"pairs": models[1]})
    expected = [p for pair in lora_pairs(models[1], "second") for p in (pair.down, pair.up)]
    given = optimizer.param_groups[1]["params"]
    assert all(p is q for p, q in zip(given, expected, strict=True))


# --- one factor moves and the other stays


@pytest.mark.parametrize("kept", ["down", "up"])
@pytest.mark.parametrize(
    "more", [{}, {"betas": (0.9, 0.99)}, {"betas": (0.9, 0.99), "moments": "pair"}], ids=str
)
def test_lora_pro_of_one_factor_is_nearest_to_the_full_gradient(
    kept: str, more: dict[str, Any]
) -> None:
    """Longhand: g^B = s⁻²M⁻¹∇_B, or g^A = s⁻²∇_A N⁻¹; Adam's D is projected in the same way."""
    _, _, model, X, Y = layer(torch.float64)
    (pair,) = lora_pairs(model)
    getattr(pair, kept).requires_grad_(False)
    rate, decay, ridge, s = 0.05, 0.1, 1e-8, pair.scale
    optimizer = PairOptimizer(model, "lora-pro", lr=rate, weight_decay=decay, **more)
    A, B = (P.detach().clone() for P in pair.factors)
    one = torch.eye(2, dtype=torch.float64)
    first = second = torch.zeros(())

    def nearest(grad_A: Tensor, grad_B: Tensor) -> Tensor:
        if kept == "up":
            return grad_A @ torch.linalg.inv(B @ B.mT + ridge * one) / s**2
        return torch.linalg.inv(A.mT @ A + ridge * one) @ grad_B / s**2

    for t in range(1, 4):
        train(model, optimizer, X, Y, 1)
        residual = X @ (model.base_model.model[0].weight.mT + s * A @ B) - Y
        G = (X.mT @ residual / len(X)).detach()
        g = nearest(s * G @ B.mT, s * A.mT @ G)
        if more:
            adams = g if "moments" in more else s * (g @ B if kept == "up" else A @ g)
            first = 0.9 * first + 0.1 * adams
            second = 0.99 * second + 0.01 * adams.square()
            D = first / (1 - 0.9**t) / ((second / (1 - 0.99**t)).sqrt() + 1e-8)
            g = D if "moments" in more else nearest(s * D @ B.mT, s * A.mT @ D)
        if kept == "up":
            A = (1 - rate * decay) * A - rate * g
        else:
            B = (1 - rate * decay) * B - rate * g
        for found, expected in zip(pair.factors, (A, B), strict=True):
            # Products over 200 rows; the Gram matrices here have condition numbers below 1e3, and
            # Adam's quotients of gradients that may be small take as much again.
            torch.testing.assert_close(
                found.detach(), expected, **near(200, operations=4 * t, condition=1e3, scale=1.0)
            )


def test_lora_pro_of_one_factor_gets_where_that_factor_can() -> None:
    """With A frozen and a target in its range the loss is quadratic in B and goes to zero."""
    _, _, model, X, _ = layer(torch.float64)
    (pair,) = lora_pairs(model)
    pair.down.requires_grad_(False)
    rng = torch.Generator().manual_seed(3)
    shift = torch.randn(2, 6, generator=rng, dtype=torch.float64)
    with torch.no_grad():
        Y = X @ (model.base_model.model[0].weight.mT + pair.scale * pair.factors.A @ shift)
        start = (model(X) - Y).square().sum()
    # δB ← (I − η(AᵀA)⁻¹AᵀΣ̂A)δB is self-adjoint in the loss's own form, Σ̂ = XᵀX/n.
    Q = torch.linalg.qr(pair.factors.A.detach()).Q
    slowest = float((1 - 0.5 * torch.linalg.eigvalsh(Q.mT @ X.mT @ X @ Q / len(X))).abs().max())
    train(model, PairOptimizer(model, "lora-pro", lr=0.5), X, Y, 40)
    # Ridge, 1e-8, and rounding are far below what is left, (0.57)^80.
    assert float((model(X) - Y).square().sum().detach()) <= slowest ** (2 * 40) * float(start)


@pytest.mark.parametrize("moves", [False, True])
def test_a_factor_that_stays_is_its_own_update(moves: bool) -> None:
    """Released order: a step of B after one of both, with the Gram matrix of A as it is then."""
    _, _, model, X, Y = layer(torch.float64)
    (pair,) = lora_pairs(model)
    optimizer = PairOptimizer(model, "scaled-adamw", lr=0.1, damping=1e-2)
    train(model, optimizer, X, Y, 1)
    A, B = (P.detach().clone() for P in pair.factors)
    optimizer.zero_grad()
    ((model(X) - Y).square().sum() / (2 * len(X))).backward()
    grad, before = pair.up.grad.mT.clone(), copy.deepcopy(optimizer.state[pair.up])
    pair.down.grad = pair.down.grad if moves else None
    optimizer.step()
    seen = pair.factors.A.detach() if moves else A
    g = torch.linalg.inv(seen.mT @ seen + 1e-2 * torch.eye(2, dtype=torch.float64)) @ grad
    first, second = (x for x in before.values() if x.shape == B.shape)
    first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g.square()
    expected = B - 0.1 * first / (second.sqrt() + 1e-8)
    assert torch.equal(pair.factors.A.detach(), A) is not moves
    torch.testing.assert_close(pair.factors.B.detach(), expected, **PATHS)

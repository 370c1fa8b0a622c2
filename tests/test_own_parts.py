"""Rules and initialisations of a user's own: run as given, recorded by name and fingerprint."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tolerance
import torch

import loraone_theory as lt

D, K, RANK, ETA, STEPS = 8, 7, 2, 0.05, 25
# 25 contractive steps of two products each, of sums over 80 samples; nothing is magnified.
TOLERANCE = tolerance.rounding(80, operations=2 * STEPS)
# Losses are squares of E, which is a fifth of AB at the least.
LOSS = 10 * TOLERANCE


def problem(seeds=(0, 1)) -> lt.LinearProblem:
    return lt.sample_linear(d=D, k=K, true_rank=2, samples=80, seeds=seeds)


def nesterov(learning_rate, damping, beta=0.9):
    def init(params):
        return tuple(torch.zeros_like(P) for P in params)

    def update(params, gradients, state):
        ball = tuple(beta * M + G for M, G in zip(state, gradients, strict=True))
        ahead = (G + beta * M for M, G in zip(ball, gradients, strict=True))
        new = (P - learning_rate * N for P, N in zip(params, ahead, strict=True))
        return tuple(new), ball

    return lt.Rule(init, update)


def small(problem, rank, seeds):
    A = torch.eye(problem.d, rank, dtype=torch.float64) / 2
    return lt.Start((A, torch.zeros(rank, problem.k, dtype=torch.float64)))


def run(method, **options):
    known = {"rank": RANK, "learning_rate": ETA, "steps": STEPS, "record": ("loss",)}
    return lt.simulate(problem(), method, **(known | options))


def test_a_rule_is_run_as_given() -> None:
    """Against torch's Nesterov on the same data, from the same start."""
    given = problem((0,))
    method = lt.methods.lora(init_std=0.3).with_rule(nesterov, name="nesterov")
    start = method.init(given, RANK, (0,))
    params = [torch.nn.Parameter(t[0].clone()) for t in start.trainable]
    optimiser = torch.optim.SGD(params, lr=ETA, momentum=0.9, nesterov=True)
    sigma, target = given.covariance.matrix[0], given.shift.dense()[0]
    for _ in range(STEPS):
        optimiser.zero_grad()
        E = params[0] @ params[1] - target
        (0.5 * (E * (sigma @ E)).sum()).backward()
        optimiser.step()
    found = lt.simulate(given, method, rank=RANK, learning_rate=ETA, steps=STEPS)
    for ours, theirs in zip(found.final, params, strict=True):
        gap = torch.linalg.matrix_norm(ours[0] - theirs)
        assert gap <= TOLERANCE * torch.linalg.matrix_norm(theirs)


def test_sweeps_are_single_runs() -> None:
    method = lt.methods.lora(init_std=0.3).trained_by(nesterov, beta=0.5)
    swept = run(method, learning_rate=[ETA / 2, ETA])
    for i, eta in enumerate((ETA / 2, ETA)):
        alone = run(method, learning_rate=eta)
        torch.testing.assert_close(swept["loss"][:, i], alone["loss"], rtol=LOSS, atol=0)


def test_a_rule_that_states_nothing_is_run_unreduced() -> None:
    method = lt.methods.lora(init_std=0.3).with_rule(nesterov, name="nesterov")
    auto, never = run(method), run(method, reduce="never")
    assert torch.equal(auto["loss"], never["loss"])

    def stated(learning_rate, damping):
        return nesterov(learning_rate, damping)._replace(equivariant=True)

    reduced = run(lt.methods.lora(init_std=0.3).with_rule(stated, name="nesterov"))
    assert not torch.equal(reduced["loss"], never["loss"])  # other roundings
    torch.testing.assert_close(reduced["loss"], never["loss"], rtol=LOSS, atol=0)


def test_names_and_fingerprints_are_recorded() -> None:
    method = lt.methods.lora().with_rule(nesterov, name="nesterov", beta=0.5)
    assert method.name == "lora-nesterov"
    held = method.hyper["rule"]
    assert (held["name"], held["beta"]) == ("nesterov", 0.5)
    assert lt.methods.lora().trained_by(nesterov).hyper["rule"]["name"] == "nesterov"
    assert lt.methods.lora().trained_by(nesterov, name="mine").name == "mine"
    other = lt.methods.lora().with_rule(lambda lr, lam: nesterov(lr, lam), name="nesterov")
    assert other.hyper["rule"]["fingerprint"] != held["fingerprint"]
    started = lt.methods.pissa().with_init(small, name="eye")
    assert started.name == "pissa-eye"
    assert started.hyper["init"]["name"] == "eye"
    assert not started.offset
    config = run(method).config
    assert json.loads(json.dumps(config["hyper"])) == config["hyper"]


def test_an_initialisation_is_where_it_says() -> None:
    method = lt.methods.lora_plus(ratio=4.0).with_init(small, name="eye")
    found = run(method, steps=1)
    A = np.eye(D, RANK) / 2
    for i in range(2):
        assert np.array_equal(found.initial.A[i].numpy(), A)
        given = problem()
        sigma, target = given.covariance.matrix[i].numpy(), given.shift.dense()[i].numpy()
        expected = 4.0 * ETA * A.T @ sigma @ target
        assert (
            np.abs(found.final.B[i].numpy() - expected).max()
            <= tolerance.rounding(D, operations=3) * np.abs(expected).max()
        )
    with pytest.raises(ValueError, match="init_std is the size of a Gaussian A0"):
        run(method, init_std=0.1)


@pytest.mark.parametrize("name", lt.METHODS)
def test_every_method_is_rebuilt_from_its_record(name: str) -> None:
    method = lt.methods.get(name)
    held = json.loads(json.dumps(method.hyper))
    again = lt.methods.rebuild(method.name, held)
    assert again.hyper == method.hyper
    assert again.name == name
    options = {"rank": RANK, "steps": 4, "damping": method.facts.damping}
    first, second = (run(made, **options) for made in (method, again))
    assert torch.equal(first["loss"], second["loss"])
    assert all(torch.equal(a, b) for a, b in zip(first.final, second.final, strict=True))


def test_own_parts_are_handed_in_again() -> None:
    method = lt.methods.lora().with_init(small, name="eye").with_rule(nesterov, name="nesterov")
    hyper = json.loads(json.dumps(method.hyper))
    again = lt.methods.rebuild(method.name, hyper, init=small, rule=nesterov)
    assert torch.equal(run(method)["loss"], run(again)["loss"])
    with pytest.raises(
        ValueError, match=r"the rule 'nesterov' was made by a user.* hand it in again"
    ):
        lt.methods.rebuild(method.name, hyper, init=small)
    with pytest.raises(ValueError, match="the init 'eye' handed in is not the one recorded"):
        lt.methods.rebuild(method.name, hyper, init=lambda p, r, s: None, rule=nesterov)


BAD_RULES = {
    "no function": (3, "must be a function of"),
    "arguments": (lambda rate: nesterov(rate, 0.0), "is called as .learning_rate, damping.; got"),
    "no rule": (lambda rate, damping: None, "must return an lt.Rule"),
}


@pytest.mark.parametrize("case", BAD_RULES)
def test_what_is_no_rule_is_refused(case: str) -> None:
    factory, message = BAD_RULES[case]
    with pytest.raises(TypeError, match=message):
        lt.methods.lora().with_rule(factory, name="mine")


def stepping(update, init=lambda params: ()):
    """A factory of a rule that makes `update`(rate, params, gradients, state)."""

    def factory(rate, damping):
        return lt.Rule(
            init, lambda params, gradients, state: update(rate, params, gradients, state)
        )

    return factory


def descended(rate, params, gradients):
    return tuple(P - rate * G for P, G in zip(params, gradients, strict=True))


def zeros(params):
    return tuple(torch.zeros_like(P) for P in params)


def in_place(rate, params, gradients, state):
    return tuple(P.sub_(rate * G) for P, G in zip(params, gradients, strict=True)), state


def ball_in_place(rate, params, gradients, state):
    ball = tuple(M.mul_(0.9).add_(G) for M, G in zip(state, gradients, strict=True))
    return descended(rate, params, ball), ball


BAD_STEPS = {
    "parameters in place": (stepping(in_place), "must not write to the tensors"),
    "state in place": (stepping(ball_in_place, zeros), "must not write to the tensors"),
    "one tensor": (
        stepping(lambda rate, p, g, s: (descended(rate, p, g)[:1], s)),
        "must return a tuple of 2 new tensors, and the state; got 1",
    ),
    "no state": (
        stepping(lambda rate, p, g, s: list(descended(rate, p, g))),
        r"must return \(new tensors, new state\); got list",
    ),
    "tensors beside the state": (
        stepping(lambda rate, p, g, s: (*descended(rate, p, g), s)),
        r"must return \(new tensors, new state\); got tuple",
    ),
    "tensors alone": (
        stepping(lambda rate, p, g, s: (descended(rate, p, g),)),
        r"must return \(new tensors, new state\); got tuple",
    ),
    "a tensor too many": (
        stepping(lambda rate, p, g, s: ((*descended(rate, p, g), p[0]), s)),
        "must return a tuple of 2 new tensors, and the state; got 3 in place",
    ),
    "a tensor for all": (
        stepping(lambda rate, p, g, s: (descended(rate, p, g)[0], s)),
        "must return a tuple of 2 new tensors, and the state; got Tensor in place",
    ),
    "another dtype": (
        stepping(lambda rate, p, g, s: (tuple(P.float() for P in descended(rate, p, g)), s)),
        "tensor 0 of rule 'mine' must stay torch.float64 .* got torch.float32",
    ),
    "another shape": (
        stepping(lambda rate, p, g, s: (tuple(P.mT for P in descended(rate, p, g)), s)),
        r"must stay torch.float64 \(2, 8, 2\).* got torch.float64 \(2, 2, 8\)",
    ),
    "no batch": (
        stepping(lambda rate, p, g, s: (tuple(P.mean(0) for P in descended(rate, p, g)), s)),
        r"must stay torch.float64 \(2, 8, 2\).* got torch.float64 \(8, 2\)",
    ),
    "arrays": (
        stepping(lambda rate, p, g, s: (tuple(P.numpy() for P in descended(rate, p, g)), s)),
        "tensor 0 of rule 'mine' must stay a tensor; got ndarray",
    ),
    "a dict": (
        stepping(lambda rate, p, g, s: (descended(rate, p, g), s), lambda params: {"t": 0}),
        "must be nested tuples of tensors and numbers",
    ),
}


@pytest.mark.parametrize("seeds", [(0,), (0, 1)], ids=len)
@pytest.mark.parametrize("case", BAD_STEPS)
def test_what_is_no_step_is_refused(case: str, seeds: tuple[int, ...]) -> None:
    """By one error, where it would have changed the start, a date or another run silently."""
    factory, message = BAD_STEPS[case]
    method = lt.methods.lora(init_std=0.3).with_rule(factory, name="mine")
    if case in ("another shape", "no batch") and len(seeds) == 1:
        message = "must stay torch.float64"
    with pytest.raises((TypeError, ValueError), match=message):
        lt.simulate(problem(seeds), method, rank=RANK, learning_rate=ETA, steps=2)


def test_a_name_is_needed() -> None:
    with pytest.raises(TypeError, match="name must be a non-empty string"):
        lt.methods.lora().with_rule(nesterov, name="")


ONE, WIDE = torch.ones(D, RANK, dtype=torch.float64), torch.ones(RANK, K, dtype=torch.float64)
BAD_STARTS = {
    "no start": ((ONE, WIDE), "must return an lt.Start; got tuple"),
    "count": (lt.Start((ONE,)), "must return 2 trainable tensors for AB; got 1"),
    "frozen": (lt.Start((ONE, WIDE), frozen=(ONE,)), "must return 0 frozen tensors"),
    "dtype": (lt.Start((ONE.float(), WIDE)), "must have the same dtype"),
    "shape": (lt.Start((ONE.mT, WIDE)), r"trainable\[0\].* must be .*8, 2.; got given"),
    "not finite": (
        lt.Start((ONE / 0, WIDE)),
        r"trainable\[0\] of initialisation 'bad' must be fin",
    ),
    "batch": (lt.Start((ONE.expand(3, D, RANK), WIDE)), "must broadcast to those of the runs"),
    "a list": (lt.Start([ONE, WIDE]), "must return a tuple of trainable tensors; got list"),
    "dense offset": (lt.Start((ONE, WIDE), offset=ONE @ WIDE), "the offset .* must be a Factors"),
    "offset's shape": (
        lt.Start((ONE, WIDE), offset=lt.Factors(WIDE.mT, ONE.mT)),
        r"the offset of initialisation 'bad' must be A \(..., 8, r\)",
    ),
    "offset's dtype": (
        lt.Start((ONE, WIDE), offset=lt.Factors(ONE.float(), WIDE.float())),
        "the offset .* must have the same dtype",
    ),
    "offset not finite": (
        lt.Start((ONE, WIDE), offset=lt.Factors(ONE / 0, WIDE)),
        "the offset of initialisation 'bad'.A must be finite",
    ),
    "offset's batch": (
        lt.Start((ONE, WIDE), offset=lt.Factors(ONE.expand(3, D, RANK), WIDE)),
        "must broadcast to those of the runs",
    ),
}


@pytest.mark.parametrize("case", BAD_STARTS)
def test_what_is_no_start_is_refused(case: str) -> None:
    start, message = BAD_STARTS[case]
    method = lt.methods.lora().with_init(lambda problem, rank, seeds: start, name="bad")
    with pytest.raises((TypeError, ValueError), match=message):
        run(method)


def test_an_initialisation_with_other_arguments_is_refused() -> None:
    with pytest.raises(TypeError, match=r"called as \(problem, rank, seeds\); got one that takes"):
        lt.methods.lora().with_init(lambda problem: None, name="bad")


FACTOR = {"now": 1.0}


def scaled_descent(learning_rate: Any, damping: Any) -> lt.Rule:
    def update(params: Any, gradients: Any, state: Any) -> Any:
        step = FACTOR["now"] * learning_rate
        return tuple(P - step * G for P, G in zip(params, gradients, strict=True)), state

    return lt.Rule(lambda params: (), update, equivariant=True)


def scaled_start(problem: Any, rank: int, seeds: Any) -> lt.Start:
    A = 0.1 * FACTOR["now"] * problem.like.new_ones(len(seeds), problem.d, rank)
    return lt.Start((A, problem.like.new_zeros(len(seeds), rank, problem.k)))


def scaled_loss(W: torch.Tensor) -> torch.Tensor:
    return FACTOR["now"] * (W - 1).square().sum() / 2


def scaled_record(view: Any) -> torch.Tensor:
    return FACTOR["now"] * view.loss


def scaled_rate(t: int) -> float:
    return 0.05 * FACTOR["now"]


def changing(part: str) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """A problem, the options of a run with a part of one's own, and that part to hand in again."""
    problem = lt.sample_linear(d=6, k=5, true_rank=2, samples=40)
    options: dict[str, Any] = {"method": "lora", "rank": 2, "learning_rate": 0.05, "steps": 6}
    if part == "rule":
        again = {"method": lt.methods.lora().with_rule(scaled_descent, name="scaled")}
    elif part == "init":
        again = {"method": lt.methods.lora().with_init(scaled_start, name="scaled")}
    elif part == "record":
        options["record"] = (lt.Record("scaled", scaled_record),)
        return problem, options, {"records": options["record"]}
    elif part == "rate":
        options["learning_rate"] = scaled_rate
        return problem, options, {"learning_rate": scaled_rate}
    else:
        problem = lt.from_loss(scaled_loss, d=6, k=5)
        return problem, options, {"problem": problem}
    return problem, options | again, again


@pytest.mark.parametrize("part", ["rule", "init", "record", "rate", "problem"])
def test_parts_whose_code_reaches_other_values_are_not_taken_for_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, part: str
) -> None:
    """Between the run and what goes on from it, or repeats it, whenever its config was read."""
    problem, options, again = changing(part)
    run = lt.simulate(problem, **options)
    run.extend(2)
    lt.rerun(run.config, **again)
    other = lt.simulate(problem, **options)  # whose config has not been read
    other.save(tmp_path / "run.npz")
    monkeypatch.setitem(FACTOR, "now", 2.0)
    for stale in (run, other):
        with pytest.raises(ValueError, match="has changed since it was made"):
            stale.extend(2)
        with pytest.raises(ValueError, match="handed in is not the one that was recorded"):
            lt.rerun(stale.config, **again)
    with pytest.raises(ValueError, match="handed in is not the one that was recorded"):
        lt.Trajectory.load(tmp_path / "run.npz").extend(2, **again)

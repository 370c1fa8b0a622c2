"""`check_rule` and `check_init`: every row of the tables passes, every broken object is caught."""

import inspect
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import loraone_theory as lt
from loraone_theory.methods import inits, rules
from loraone_theory.methods.rules import Descent, Local
from loraone_theory.testing import ContractError, check_init, check_rule

TRAINS = {"zero": "full", "lora-xs": "core", "lora-sb": "core", "adalora": "triplets"}


def factory(make: Callable[..., lt.Rule], **hyper: Any):
    if "damping" in inspect.signature(make).parameters:
        return lambda learning_rate, damping: make(learning_rate, damping=damping, **hyper)
    return lambda learning_rate, damping: make(learning_rate, **hyper)


VARIANTS = {
    "lora-pro with betas": factory(rules.lora_pro, betas=(0.9, 0.999)),
    "scaled-adamw of peft": factory(rules.scaled_adamw, order="peft"),
    "adaptive preconditioned": factory(rules.preconditioned, adaptive=0.1),
    **{
        f"{name} with {kind}": factory(make, **{kind: 0.2})
        for name, make in rules.RULES.items()
        for kind in ("weight_decay", "l2", "relative")
        if kind in inspect.signature(make).parameters
    },
}
SOUND = {name: factory(make) for name, make in rules.RULES.items()} | VARIANTS


@pytest.mark.parametrize("name", SOUND)
def test_every_rule_passes(name: str) -> None:
    check_rule(SOUND[name])


@pytest.mark.parametrize("name", rules.AROUND)
def test_every_rule_around_another_passes(name: str) -> None:
    check_rule(rules.AROUND[name](rules.gd(0.01), target_rank=2, total_steps=10), trains="triplets")


@pytest.mark.parametrize("name", lt.METHODS)
def test_every_method_passes(name: str) -> None:
    method = lt.methods.get(name, 3)
    trains = method.parametrise.__name__
    if trains != "core":  # whose one tensor is as good as a full matrix
        check_rule(method.rule, trains=trains)
    check_init(method.init, trains=trains)


@pytest.mark.parametrize("name", inits.INITS)
def test_every_initialisation_passes(name: str) -> None:
    make = inits.INITS[name]
    check_init(make(0.1) if name == "gaussian" else make(), trains=TRAINS.get(name, "pair"))


# --- broken rules ----------------------------------------------------------------------------


def stepped(params, gradients, eta):
    return tuple(P - eta * G for P, G in zip(params, gradients, strict=True))


def plain(eta, lam, update=None, init=lambda params: None, **facts: Any) -> lt.Rule:
    """Gradient descent, or what is given in place of its parts."""

    def default(params, gradients, state):
        return stepped(params, gradients, eta), state

    return lt.Rule(init, default if update is None else update, **facts)


def writes_to_parameters(eta, lam):
    def update(params, gradients, state):
        for P, G in zip(params, gradients, strict=True):
            P.sub_(eta * G)
        return tuple(P.clone() for P in params), state

    return plain(eta, lam, update)


def writes_to_its_state(eta, lam):
    def update(params, gradients, state):
        for M, G in zip(state, gradients, strict=True):
            M.mul_(0.9).add_(G)
        return stepped(params, state, eta), state

    return plain(eta, lam, update, lambda params: tuple(torch.zeros_like(P) for P in params))


def holds_a_list(eta, lam):
    return plain(eta, lam, init=lambda params: [torch.zeros_like(P) for P in params])


def holds_a_float(eta, lam):
    return plain(eta, lam, init=lambda params: (0.0,))


def grows_its_state(eta, lam):
    def update(params, gradients, state):
        return stepped(params, gradients, eta), (*state, 1)

    return plain(eta, lam, update, lambda params: ())


def counts_in_secret(eta, lam):
    calls = []

    def update(params, gradients, state):
        calls.append(1)
        return stepped(params, gradients, eta / len(calls)), state

    return plain(eta, lam, update)


def is_noisy(eta, lam):
    def update(params, gradients, state):
        noise = 1 + 0.1 * random.random()
        return stepped(params, gradients, eta * noise), state

    return plain(eta, lam, update)


def goes_to_double(eta, lam):
    def update(params, gradients, state):
        return tuple(P.double() for P in stepped(params, gradients, eta)), state

    return plain(eta, lam, update)


def transposes(eta, lam):
    def update(params, gradients, state):
        return tuple(P.mT for P in stepped(params, gradients, eta)), state

    return plain(eta, lam, update)


def returns_a_list(eta, lam):
    def update(params, gradients, state):
        return list(stepped(params, gradients, eta)), state

    return plain(eta, lam, update)


def mixes_runs(eta, lam):
    def update(params, gradients, state):
        size = max(float(G.norm()) for G in gradients)
        return stepped(params, gradients, eta / size), state

    return plain(eta, lam, update)


def is_entrywise(eta, lam):
    def update(params, gradients, state):
        return stepped(params, tuple(G.sign() for G in gradients), eta), state

    return plain(eta, lam, update, equivariant=True)


def swaps_the_pair(eta, lam):
    def update(params, gradients, state):
        (A, B), (grad_A, grad_B) = params, gradients
        return (A - eta * grad_A, B - 2 * eta * grad_B), state

    return plain(eta, lam, update)


def damps_in_secret(eta, lam):
    def update(params, gradients, state):
        return stepped(params, gradients, eta / (1 + lam)), state

    return plain(eta, lam, update)


def inverts_nothing(eta, lam):
    return plain(eta, lam, inverts=True)


def loses_rates(eta, lam):
    rate = float(torch.as_tensor(eta).flatten()[0])

    def update(params, gradients, state):
        return stepped(params, gradients, rate), state

    return plain(eta, lam, update)


def overflows_in_single(eta, lam):
    def update(params, gradients, state):
        sizes = (((1e20 * G) ** 2).sum((-2, -1), keepdim=True).sqrt() / 1e20 for G in gradients)
        scaled = tuple(G / size for G, size in zip(gradients, sizes, strict=True))
        return stepped(params, scaled, eta), state

    return plain(eta, lam, update)


def steps_differently_in_place(eta, lam):
    return plain(eta, lam, equivariant=True, descent=Descent(2 * eta))


def counts_drops_over_all(eta, lam):
    zero = torch.zeros((), dtype=torch.int64)
    return plain(eta, lam, dropped=lambda state: (zero, zero))


def ends_above(eta, lam):
    return plain(eta, lam, ends_with=lambda rank: rank + 1)


def normalises(eta, lam):
    def update(params, gradients, state):
        sizes = (torch.linalg.matrix_norm(G, keepdim=True) for G in gradients)
        return stepped(params, tuple(G / s for G, s in zip(gradients, sizes, strict=True)), eta), ()

    return plain(eta, lam, update, lambda params: ())


def inverts_at_the_start(eta, lam):
    def update(params, gradients, state):
        B, (grad_A, grad_B) = params[1], gradients
        right = (B.square().sum((-2, -1), keepdim=True)).reciprocal()
        return stepped(params, (grad_A * right, grad_B), eta), state

    return plain(eta, lam, update, pair=True)


def states_a_momentum(eta, lam):
    return plain(eta, lam, local=Local(momentum=0.9))


def states_a_preconditioner(eta, lam):
    return plain(eta, lam, local=Local("preconditioned"))


def states_a_projection(eta, lam):
    return plain(eta, lam, pair=True, local=Local("full"))


def states_a_ratio(eta, lam):
    return plain(eta, lam, pair=True, local=Local(ratio=4.0))


def looks_ahead(eta, lam):
    """Nesterov's momentum, which is not heavy-ball's."""

    def update(params, gradients, state):
        ball = tuple(0.9 * M + G for M, G in zip(state, gradients, strict=True))
        ahead = tuple(G + 0.9 * M for M, G in zip(ball, gradients, strict=True))
        return stepped(params, ahead, eta), ball

    zeros = lambda params: tuple(torch.zeros_like(P) for P in params)  # noqa: E731
    return plain(eta, lam, update, zeros, local=Local(momentum=0.9))


def is_no_flow(eta, lam):
    return plain(eta, lam, flow=True)


def reads_back(eta, lam):
    def update(params, gradients, state):
        clips = tuple(G if float(G.abs().max()) < 1e9 else G / 2 for G in gradients)
        return stepped(params, clips, eta), state

    return plain(eta, lam, update, replays=True)


def reads_sizes(eta, lam):
    def update(params, gradients, state):
        rms = [G.square().mean((-2, -1), keepdim=True).sqrt() for G in gradients]
        steps = [G / (1e-3 + size) for G, size in zip(gradients, rms, strict=True)]
        return stepped(params, steps, eta), state

    return plain(eta, lam, update, equivariant=True)


def tires_in_secret(eta, lam):
    calls = []

    def update(params, gradients, state):
        calls.append(1)
        return stepped(params, gradients, eta if len(calls) < 30 else eta / 2), state

    return plain(eta, lam, update)


BROKEN_RULES = {
    reads_sizes: "on the problem within more dimensions",
    tires_in_secret: "the same bits a second time",
    normalises: "finite at a solution",
    inverts_at_the_start: "finite at B = 0",
    states_a_momentum: "the one that local=Local",
    states_a_preconditioner: "the one that local=Local",
    states_a_projection: "the one that local=Local",
    states_a_ratio: "the one that local=Local",
    looks_ahead: "the one that local=Local",
    is_no_flow: "states flow=True must go by learning rate x steps",
    reads_back: "states replays=True must not read values back",
    writes_to_parameters: "must not write",
    writes_to_its_state: "must not write",
    holds_a_list: "tuples of tensors and integers.* got list",
    holds_a_float: "tuples of tensors and integers.* got float",
    grows_its_state: "keep its form",
    counts_in_secret: "same bits",
    is_noisy: "same bits",
    goes_to_double: "must stay",
    transposes: "must stay",
    returns_a_list: "must return a tuple of 2 tensors",
    mixes_runs: "each run of a batch must go as it goes alone",
    is_entrywise: "equivariant=True must give the rotated trajectory",
    swaps_the_pair: "states pair=True",
    damps_in_secret: "the damping changes the steps, and the rule states inverts=False",
    inverts_nothing: "does not change the steps, and the rule states inverts=True",
    loses_rates: "must stand for one run each",
    overflows_in_single: "adds in float32 must be that in float64",
    steps_differently_in_place: "descent must be the step",
    counts_drops_over_all: "dropped must count per run",
    ends_above: "ends_with must give ranks",
}


@pytest.mark.parametrize("broken", BROKEN_RULES, ids=lambda f: f.__name__)
def test_a_broken_rule_is_caught(broken: Callable) -> None:
    with pytest.raises(ContractError, match=BROKEN_RULES[broken]):
        check_rule(broken)


def test_what_they_are_broken_from_is_sound() -> None:
    check_rule(plain)
    check_rule(lambda eta, lam: plain(eta, lam, equivariant=True, descent=Descent(eta)))
    check_rule(lambda eta, lam: plain(1e-4 * eta, lam))  # steps far below the tensors' own size
    with pytest.raises(ContractError, match=r"must return an lt.Rule; got int"):
        check_rule(lambda eta, lam: 3)


# --- broken initialisations ------------------------------------------------------------------


def numbered(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def sound(problem, rank, seeds):
    A = torch.stack([numbered(seed, problem.d, rank) for seed in seeds]).to(problem.like)
    return lt.Start((A, A.new_zeros(len(seeds), rank, problem.k)))


def ignores_the_dtype(problem, rank, seeds):
    return lt.Start(tuple(t.double() for t in sound(problem, rank, seeds).trainable))


def ignores_the_rank(problem, rank, seeds):
    return sound(problem, 3, seeds)


def is_no_start(problem, rank, seeds):
    return sound(problem, rank, seeds).trainable


def draws_from_the_global_generator(problem, rank, seeds):
    A = torch.randn(len(seeds), problem.d, rank).to(problem.like)
    return lt.Start((A, sound(problem, rank, seeds).trainable[1]))


def seeds_the_global_generator(problem, rank, seeds):
    torch.manual_seed(seeds[0])
    return sound(problem, rank, seeds)


def draws_all_trials_from_the_first_seed(problem, rank, seeds):
    A = numbered(seeds[0], len(seeds), problem.d, rank).to(problem.like)
    return lt.Start((A, sound(problem, rank, seeds).trainable[1]))


def takes_the_gradient_of_the_first_instance(problem, rank, seeds):
    U = torch.linalg.svd(problem.one_step_gradient().dense()[:1]).U[..., :rank]
    return lt.Start((U.expand(len(seeds), -1, -1), sound(problem, rank, seeds).trainable[1]))


def writes_to_the_problem(problem, rank, seeds):
    problem.pretrained.mul_(2)
    return sound(problem, rank, seeds)


def leaves_the_batch_axis_first(problem, rank, seeds):
    A, B = sound(problem, rank, seeds).trainable
    return lt.Start((A[:, None], B[:, None]))


def makes_an_offset_of_a_tensor(problem, rank, seeds):
    start = sound(problem, rank, seeds)
    return start._replace(offset=start.trainable[0] @ start.trainable[1])


def is_infinite(problem, rank, seeds):
    A, B = sound(problem, rank, seeds).trainable
    return lt.Start((A / 0, B))


def seeds_numpys_generator(problem, rank, seeds):
    np.random.seed(seeds[0])  # noqa: NPY002
    return sound(problem, rank, seeds)


def makes_an_offset_of_another_dtype(problem, rank, seeds):
    start = sound(problem, rank, seeds)
    return start._replace(offset=lt.Factors(*(t.double() for t in start.trainable)))


def makes_an_infinite_offset(problem, rank, seeds):
    start = sound(problem, rank, seeds)
    return start._replace(offset=lt.Factors(start.trainable[0] / 0, start.trainable[1]))


BROKEN_INITS = {
    seeds_numpys_generator: "leave torch's global generator alone, and numpy's",
    makes_an_offset_of_another_dtype: "the offset .* must have the same dtype",
    makes_an_infinite_offset: "the offset .* must be finite",
    ignores_the_dtype: "same dtype",
    ignores_the_rank: r"must be \(\.\.\., ",
    is_no_start: "must return an lt.Start",
    draws_from_the_global_generator: "same bits",
    seeds_the_global_generator: "leave torch's global generator alone",
    draws_all_trials_from_the_first_seed: "trial 0 must depend on instance 0 and seed 3 only",
    takes_the_gradient_of_the_first_instance: "trial 1 must depend on instance 1",
    writes_to_the_problem: "must not write to the problem",
    leaves_the_batch_axis_first: "batch axis of one entry per seed",
    makes_an_offset_of_a_tensor: "the offset of initialisation .* must be a Factors",
    is_infinite: "must be finite",
}


@pytest.mark.parametrize("broken", BROKEN_INITS, ids=lambda f: f.__name__)
def test_a_broken_initialisation_is_caught(broken: Callable) -> None:
    state = torch.get_rng_state()
    try:
        with pytest.raises(ContractError, match=BROKEN_INITS[broken]):
            check_init(broken)
    finally:
        torch.set_rng_state(state)


def test_the_initialisation_they_are_broken_from_is_sound() -> None:
    check_init(sound)

"""Methods go on and are made again: on minibatches, on schedules, on every kind of problem."""

import json

import numpy as np
import pytest
import torch

import loraone_theory as lt
from loraone_theory.problems.recipes import RECIPES

SIZES = {"d": 7, "k": 6, "true_rank": 2, "seeds": (3, 4)}
ROWS = {"samples": 40}
# The arguments of each sampler beside the sizes.
KINDS = {
    "sample_linear": ROWS,
    "linear_population": ROWS,
    "sample_linear_matrix_free": ROWS,
    "sample_relu": {**ROWS, "relative_shift": 0.1},
    "sample_relu_population": {"relative_shift": 0.1},
    "sample_activation": {**ROWS, "relative_shift": 0.1, "activation": "gelu"},
    "sample_linear_lazy": {"d": 60, "k": 50, **ROWS, "noise_std": 0.1, "steps": 8, "rank": 2},
    "sample_sensing": {"measurements": 60, "ensemble": "dense"},
    "sample_dense_lazy": {"measurements": 60, "steps": 12},
}

FROM_W = {"pissa", "milora", "olora", "lora-xs"}
NO_WEIGHT = {"sample_sensing", "sample_dense_lazy", "sample_linear_matrix_free"}
NO_WEIGHT |= {"sample_linear_lazy"}


def method(name):
    """AdaLoRA with a schedule that ends within the run; LoRA-init that moves at once."""
    hyper = {"total_steps": 14, "target_rank": 1} if name == "adalora" else {}
    return lt.METHODS[name](**hyper)


def same(found, expected):
    for one, other in zip(found.final, expected.final, strict=True):
        assert torch.equal(one, other)
    assert set(found.records) == set(expected.records)
    for name, value in expected.records.items():
        assert torch.equal(found[name].nan_to_num(7.0), value.nan_to_num(7.0)), name
    assert (found.status == expected.status).all()


@pytest.mark.parametrize("sampling", [None, "with-replacement", "epochs"])
@pytest.mark.parametrize("name", lt.METHODS)
def test_minibatches_and_schedules_go_on(name, sampling, tmp_path):
    problem = lt.sample_linear(**SIZES, **ROWS, keep_inputs=True)
    rates = [lt.schedules.cosine(0.05, steps=15, warmup=3), 0.01]
    given = {"rank": 2, "learning_rate": rates, "record": ("loss", "risk", "gradient_norm")}
    given["damping"] = method(name).facts.damping
    if sampling is not None:
        given |= {"batch_size": 9, "sampling": sampling}
    whole = lt.simulate(problem, method(name), steps=17, **given)
    half = lt.simulate(problem, method(name), steps=8, **given)
    same(half.extend(4).extend(5), whole)
    half.save(tmp_path / "half.npz")
    same(lt.Trajectory.load(tmp_path / "half.npz").extend(9), whole)
    same(lt.rerun(json.loads(json.dumps(whole.config))), whole)


def gelu_loss(W, X, Y):
    return 0.5 * (torch.nn.functional.gelu(X @ W) - Y).square().sum(-1).mean()


def given_loss():
    rng = np.random.default_rng(0)
    X, Y, W = (torch.from_numpy(rng.standard_normal(s)) for s in ((40, 7), (40, 6), (7, 6)))
    return lt.from_loss(gelu_loss, d=7, k=6, pretrained=W, data=(X, Y))


WITH_ROWS = {
    "relu": lambda: lt.sample_relu(**SIZES, **KINDS["sample_relu"]),
    "activation": lambda: lt.sample_activation(**SIZES, **KINDS["sample_activation"]),
    "loss": given_loss,
    "dense": lambda: lt.sample_sensing(**SIZES, **KINDS["sample_sensing"]),
    "completion": lambda: lt.sample_sensing(**SIZES, measurements=60, ensemble="completion"),
}


@pytest.mark.parametrize("sampling", ["with-replacement", "epochs"])
@pytest.mark.parametrize("name", ["full", "lora-momentum", "lora-adamw", "p-lora-alternating"])
@pytest.mark.parametrize("kind", WITH_ROWS)
def test_minibatches_of_every_kind_of_problem_go_on(kind, name, sampling, tmp_path):
    problem = WITH_ROWS[kind]()
    given = {"rank": 2, "learning_rate": 0.01, "seeds": (3, 4), "record": ("loss",)}
    given |= {"batch_size": 9, "sampling": sampling, "damping": method(name).facts.damping}
    whole = lt.simulate(problem, method(name), steps=9, **given)
    half = lt.simulate(problem, method(name), steps=4, **given)  # in the middle of an epoch
    same(half.extend(5), whole)
    half.save(tmp_path / "half.npz")
    own = {"problem": problem} if kind == "loss" else {}
    same(lt.Trajectory.load(tmp_path / "half.npz").extend(5, **own), whole)
    same(lt.rerun(json.loads(json.dumps(whole.config)), **own), whole)


def test_every_kind_of_problem_is_here():
    assert set(KINDS) == set(RECIPES)


def unfit(name, kind):
    """What a method is told on a problem that has no W, or is known up to a rotation only."""
    if name in FROM_W and kind in NO_WEIGHT:
        return "initialises from the pre-trained"
    turned = "sample_linear_matrix_free", "sample_linear_lazy"
    return "is not rotation-equivariant" if kind in turned and not turns(name) else None


def turns(name):
    made = method(name).at(2)
    return made.facts.equivariant and made.parametrisation.turns


# Those that are drawn as a run goes, for directions of few methods.
DRAWN_LATE = {"sample_linear_lazy", "sample_dense_lazy"}
TRIED = [
    (name, kind)
    for kind in KINDS
    for name in lt.METHODS
    if kind not in DRAWN_LATE or name in ("lora", "lora-one")
]


@pytest.mark.parametrize(("name", "kind"), TRIED)
def test_a_run_is_made_again_from_its_config(name, kind):
    def drawn():
        return RECIPES[kind](**(SIZES | KINDS[kind]))

    given = {"rank": 2, "learning_rate": 0.01, "steps": 4, "record": ("loss", "risk")}
    given["damping"] = method(name).facts.damping
    if reason := unfit(name, kind):
        with pytest.raises(ValueError, match=reason):
            lt.simulate(drawn(), method(name), **given)
        return
    run = lt.simulate(drawn(), method(name), **given)
    config = json.loads(json.dumps(run.config))
    same(lt.rerun(config), run)
    if kind == "sample_linear_lazy":  # its noise is drawn in the order in which it is asked for
        return
    begun = lt.simulate(drawn(), method(name), **(given | {"steps": 1}))
    same(begun.extend(3), run)


def data():
    """Problems of one instance, whose runs share its tensors."""
    rng = np.random.default_rng(0)
    X, W = rng.standard_normal((90, 24)), rng.standard_normal((24, 18))
    shift = rng.standard_normal((24, 2)) @ rng.standard_normal((2, 18)) / 20
    gelu, rows = torch.nn.functional.gelu, torch.tensor(X)

    def loss(W, X, Y):
        return 0.5 * (gelu(X @ W) - Y).square().sum(-1).mean()

    labels = gelu(rows @ torch.tensor(W + shift))
    yield "linear", lt.LinearProblem.from_data(X, shift=shift, pretrained=W)
    yield (
        "population",
        lt.LinearProblem.population(shift=lt.Factors(*map(torch.tensor, two(shift)))),
    )
    yield "relu", lt.ReLUProblem.from_data(X, shift=shift, pretrained=W)
    yield "gelu", lt.from_loss(loss, d=24, k=18, pretrained=W, data=(rows, labels))
    for ensemble in lt.operators.OPERATORS:
        square = 18 if ensemble == "symmetric" else 24
        yield (
            ensemble,
            lt.sample_sensing(ensemble=ensemble, d=square, k=18, true_rank=2, measurements=180),
        )


def two(M):
    U, S, Vt = np.linalg.svd(M)
    return U[:, :2] * S[:2], Vt[:2]


GIVEN = dict(data())


CUT = [(kind, "auto") for kind in GIVEN] + [("linear", "never"), ("population", "never")]


@pytest.mark.parametrize(("kind", "reduce"), CUT)
def test_no_record_depends_on_where_a_run_stopped(kind, reduce):
    """Records of many times are measured together, and yet bit for bit as of any cut."""
    for name, seeds in (("lora", (0,)), ("lora", (0, 1, 2)), ("full", (0,)), ("lora-ga", (0, 1))):
        # The Hessian's eigenvalue takes a hundred gradients: in one run.
        apart = {"balance": name == "full", "sharpness": name != "lora" or len(seeds) > 1}
        record = [n for n in lt.RECORDS if not apart.get(n, False)]
        given = {"rank": 2, "learning_rate": 0.01, "seeds": seeds, "record": record}
        given["reduce"] = reduce
        whole = lt.simulate(GIVEN[kind], name, steps=7, **given)
        same(lt.simulate(GIVEN[kind], name, steps=3, **given).extend(4), whole)


def test_what_is_drawn_as_a_run_goes_is_not_in_its_file(tmp_path):
    problem = lt.sample_dense_lazy(**SIZES, **KINDS["sample_dense_lazy"])
    run = lt.simulate(problem, "lora", rank=2, learning_rate=0.1, steps=3)
    run.save(tmp_path / "run.npz")
    back = lt.Trajectory.load(tmp_path / "run.npz")
    same(lt.rerun(back.config), run)
    with pytest.raises(ValueError, match="is drawn as its runs go"):
        back.extend(2)

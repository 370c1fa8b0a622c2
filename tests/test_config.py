"""`run.config` says what ran: what a call or a factory was given, once, and the same bits again."""

import inspect
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import loraone_theory as lt
from loraone_theory import storage
from loraone_theory.core.fingerprint import fingerprint
from loraone_theory.dynamics import provenance

RANK = 3
USUAL = {"learning_rate": 0.02, "damping": 0.0, "init_std": None, "initial": None}
# What a call decides in place of the method or its default, and other values of it.
CALLED = {
    "learning_rate": (0.03, [0.03, 0.01]),
    "damping": (0.125, [0.125, 0.25]),
    "init_std": (1e-5, [1e-5, 0.3]),
    "initial": (None,),  # made below
}
# Of the flow's integrator, a hyper-parameter and no tolerance of these tests.
INTEGRATED_TO = 1e-6
# Another value of every hyper-parameter that a factory takes.
FACTORY = {
    "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.25, "rtol": INTEGRATED_TO, "init_std": 0.3,
    "scale": 2.0, "beta": 0.5, "alpha": 2.0, "ratio": 4.0, "adaptive": 0.5, "order": "peft",
    "bias_correction": True, "escaped_mass": True, "ridge": 1e-4, "target_rank": 1,
    "total_steps": 20, "initial_steps": 2, "final_steps": 2, "interval": 2, "penalty": 0.25,
    "squared": True, "svd": lt.SVDOptions("lowrank", q=6, niter=2, seed=1), "core_std": 1e-3,
    "gamma": 8.0, "direction": "A2rBr", "size": "unit", "step": 0.5, "signed": True,
    "covariance": torch.eye(8, dtype=torch.float64),
}  # fmt: skip
PARAMETERS = [
    (name, parameter)
    for name, factory in lt.METHODS.items()
    for parameter in inspect.signature(factory).parameters
]


def problem() -> lt.LinearProblem:
    return lt.sample_linear(d=8, k=7, true_rank=2, samples=80, seeds=(3, 4))


def simulate(method: Any, **changes: Any) -> lt.Trajectory:
    given = {"learning_rate": 0.02, "steps": 5, "record": ("loss", "risk")} | changes
    return lt.simulate(problem(), method, rank=RANK, **given)


def through_json(run: lt.Trajectory) -> dict[str, Any]:
    return json.loads(json.dumps(dict(run.config)))


def test_threads_are_those_that_the_run_had(tmp_path: Path) -> None:
    """Also where they are changed before the config is asked for."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        run = simulate("lora")
        torch.set_num_threads(2)
        assert run.config["threads"] == 1
        assert run.extend(2).config["threads"] == 2
        run.save(tmp_path / "run.npz")
    finally:
        torch.set_num_threads(before)
    loaded = lt.Trajectory.load(tmp_path / "run.npz")
    assert loaded.config["threads"] == 1


def test_versions_of_one_config_are_its_own() -> None:
    runs = [simulate("lora"), simulate("lora")]
    runs[0].config["versions"]["torch"] = "changed"
    assert runs[1].config["versions"]["torch"] == torch.__version__


def same(found: lt.Trajectory, expected: lt.Trajectory) -> None:
    assert torch.equal(found["loss"], expected["loss"])
    assert all(torch.equal(a, b) for a, b in zip(found.final, expected.final, strict=True))
    assert found.coordinates == expected.coordinates


def entries(held: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Path -> what stands there, through all dicts."""
    if not isinstance(held, dict):
        return {path: held}
    found = {}
    for key, value in held.items():
        found |= entries(value, (*path, key))
    return found


def factors() -> lt.Factors:
    rng = torch.Generator().manual_seed(0)
    A, B = (torch.randn(*s, dtype=torch.float64, generator=rng) / 4 for s in ((8, RANK), (RANK, 7)))
    return lt.Factors(A, B)


def takes(method: lt.Method, argument: str) -> bool:
    """Whether a call may decide this."""
    return {
        "learning_rate": True,
        "damping": method.facts.inverts,
        "init_std": method.init_std is not None,
        "initial": method.is_pair and not method.offset,
    }[argument]


DECIDED = [
    (name, argument, place)
    for name in lt.METHODS
    for argument, values in CALLED.items()
    if takes(lt.methods.get(name), argument)
    for place in range(len(values))
]


def test_every_argument_of_a_number_is_tried() -> None:
    """Those of `simulate` that are a number or factors of the runs, not their length or records."""
    known = inspect.signature(lt.simulate).parameters
    assert set(CALLED) == set(USUAL) <= set(known)
    others = {
        "problem", "method", "rank", "steps", "seeds", "record", "every", "reduce", "keep_factors",
        "until", "batch_size", "sampling", "engine", "progress",
    }  # fmt: skip
    assert set(known) - set(CALLED) == others


@pytest.mark.parametrize(("name", "argument", "place"), DECIDED)
def test_what_a_call_decides_is_what_its_config_says(name, argument, place, tmp_path) -> None:
    value = factors() if argument == "initial" else CALLED[argument][place]
    given = {"damping": lt.methods.get(name).facts.damping} | {argument: value}
    whole = simulate(name, **given)
    config, usual = through_json(whole), lt.methods.get(name, RANK)

    used = fingerprint(tuple(value)) if argument == "initial" else value
    told = {path: entry for path, entry in entries(config).items() if path[-1] == argument}
    assert set(told.values() if place == 0 else map(tuple, told.values())) == {
        used if place == 0 else tuple(used)
    }
    if argument == "initial":
        assert config["hyper"]["init"] == {"name": "given", "fingerprint": used}
        assert config["hyper"]["init_std"] is config["init_std"] is None
    elif argument == "init_std":
        assert config["hyper"] == {**usual.hyper, "init_std": value}
    else:
        assert config["hyper"] == usual.hyper

    own = {"initial": value} if argument == "initial" else {}
    again = lt.rerun(config, **own)
    same(again, whole)
    assert through_json(again) == config
    same(lt.rerun(config, method=lt.METHODS[name](), **own), whole)
    half = simulate(name, **given | {"steps": 3})
    same(half.extend(2, method=lt.METHODS[name]()), whole)
    half.save(tmp_path / "half.npz")
    back = lt.Trajectory.load(tmp_path / "half.npz")
    assert dict(back.config) == through_json(half)
    same(back.extend(2), whole)


@pytest.mark.parametrize(("name", "argument"), [(n, a) for n, a, place in DECIDED if place == 0])
def test_files_that_told_the_methods_own_are_read(name, argument, tmp_path) -> None:
    """Former versions held `Method.hyper` from before the call."""
    value = factors() if argument == "initial" else CALLED[argument][0]
    given = {"damping": lt.methods.get(name).facts.damping} | {argument: value}
    half = simulate(name, **given | {"steps": 3})
    half.save(tmp_path / "half.npz")
    arrays = storage.load_arrays(tmp_path / "half.npz")
    meta = json.loads(str(arrays["meta"]))
    meta["config"]["hyper"] = through_json(simulate(name, **given | USUAL, steps=1))["hyper"]
    storage.save_arrays(tmp_path / "old.npz", arrays | {"meta": json.dumps(meta)})
    same(lt.Trajectory.load(tmp_path / "old.npz").extend(2), simulate(name, **given))


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_every_hyper_parameter_of_a_factory_is_told_once(name, parameter) -> None:
    value = FACTORY[parameter]
    method = lt.METHODS[name](**{parameter: value})
    damping = method.facts.damping
    usual, whole = simulate(name, damping=damping), simulate(method, damping=damping)
    before, after = entries(through_json(usual)["hyper"]), entries(through_json(whole)["hyper"])
    changed = {path: held for path, held in after.items() if before.get(path, ()) != held}
    if parameter == "alpha":  # rsLoRA's, at this rank
        assert changed == {("scale",): value / math.sqrt(RANK)}
    elif parameter == "svd":
        assert {path[-1]: held for path, held in changed.items()} == value._asdict()
        assert len({path[:-1] for path in changed}) == 1
    else:
        ((path, held),) = changed.items()
        assert path[-1] == parameter
        plain = {tuple: list, torch.Tensor: torch.Tensor.tolist}.get(type(value), lambda v: v)
        assert held == plain(value)
    same(lt.rerun(through_json(whole)), whole)
    same(lt.rerun(through_json(whole), method=method), whole)
    with pytest.raises(ValueError, match="the method handed in is not the one that was recorded"):
        lt.rerun(through_json(whole), method=lt.METHODS[name]())


def test_a_size_for_each_run_is_told_and_made_again() -> None:
    """One float32 tensor of sizes on a problem in float64, and through JSON."""
    sizes = torch.tensor([[[0.25]], [[0.5]]])
    whole = simulate(lt.methods.lora().with_init_std(sizes))
    config = through_json(whole)
    assert config["init_std"] == config["hyper"]["init_std"] == sizes.tolist()
    same(lt.rerun(config), whole)
    for i, size in enumerate((0.25, 0.5)):  # exact in both types
        assert torch.equal(whole.initial.A[i], simulate("lora", init_std=size).initial.A[i])


def test_a_method_is_rebuilt_from_a_config_alone() -> None:
    small = simulate("lora", init_std=1e-5).config
    assert lt.methods.rebuild(small["method"], small["hyper"]).init_std == 1e-5
    swept = simulate("lora", init_std=[1e-5, 0.3]).config
    with pytest.raises(ValueError, match=r"runs with each of \[1e-05, 0.3\]; pass one of them"):
        lt.methods.rebuild(swept["method"], swept["hyper"])
    given = simulate("lora", initial=factors())
    hyper = given.config["hyper"]
    with pytest.raises(ValueError, match="the init 'given' was made by a user"):
        lt.methods.rebuild("lora", hyper)
    made = lt.methods.rebuild("lora", hyper, initial=factors())
    assert made.hyper == hyper
    same(simulate(made), given)
    other = lt.Factors(factors().A + 1, factors().B)
    for wrong, held in ((other, hyper), (factors(), small["hyper"])):
        with pytest.raises(ValueError, match="initial factors handed in are not what the record"):
            lt.methods.rebuild("lora", held, initial=wrong)


@pytest.mark.parametrize("key", provenance.NEEDED)
def test_a_config_that_lacks_what_a_run_hangs_on_is_refused(key: str) -> None:
    problem = lt.sample_linear(d=5, k=4, true_rank=2, samples=30)
    config = dict(lt.simulate(problem, "lora", rank=2, learning_rate=0.1, steps=2).config)
    del config[key]
    with pytest.raises(ValueError, match=rf"does not hold all .*: {key} is missing"):
        lt.rerun(config)


@pytest.mark.parametrize(
    "method",
    [
        lt.methods.symmetric(init_std=0.3),
        lt.methods.symmetric(init_std="spectral"),
        lt.methods.symmetric_preconditioned(init_std=0.3, adaptive=0.5),
    ],
    ids=lambda method: f"{method.name}-{method.init_std}",
)
def test_symmetric_methods_are_rebuilt_from_a_config_alone(method: Any, tmp_path: Any) -> None:
    problem = lt.sample_sensing(ensemble="symmetric", d=5, k=5, true_rank=2, measurements=80)
    given = {"rank": 2, "learning_rate": 0.05, "damping": 0.1}
    given = given if method.facts.inverts else {**given, "damping": 0.0}
    run = lt.simulate(problem, method, steps=4, **given)
    config = json.loads(json.dumps(dict(run.config)))
    assert torch.equal(lt.rerun(config)["loss"], run["loss"])
    assert lt.methods.rebuild(config["method"], config["hyper"]).hyper == method.hyper
    lt.simulate(problem, method, steps=2, **given).save(tmp_path / "run.npz")
    assert torch.equal(lt.Trajectory.load(tmp_path / "run.npz").extend(2)["loss"], run["loss"])

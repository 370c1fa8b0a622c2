"""Runs that go on: 25 + 35 steps are 60 steps, in memory, from a file and from a config."""

import json

import numpy as np
import pytest
import torch
from tolerance import close, rounding

import loraone_theory as lt
from loraone_theory import storage
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.rates import Rates
from loraone_theory.methods import schedules

RELU = {"d": 7, "k": 6, "true_rank": 2, "relative_shift": 0.1, "seeds": (3, 4)}


def linear():
    return lt.sample_linear(d=8, k=7, true_rank=2, samples=80, seeds=(3, 4))


def options(method, **changes):
    pair = lt.methods.get(method, 2).is_pair
    record = [n for n in lt.RECORDS if (pair or n != "balance") and n != "sharpness"]
    return {"rank": 2, "learning_rate": 0.05, "record": record, "every": 10} | changes


def same(found, expected):
    for one, other in zip(found.final, expected.final, strict=True):
        assert torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0))
    assert found.steps.tolist() == expected.steps.tolist()
    assert set(found.records) == set(expected.records)
    for name, value in expected.records.items():
        assert torch.equal(found[name].nan_to_num(7.0), value.nan_to_num(7.0)), name
    assert (found.status == expected.status).all()
    assert found.coordinates == expected.coordinates


@pytest.mark.parametrize("reduce", ["auto", "never"])
@pytest.mark.parametrize("name", sorted(lt.METHODS))
def test_two_halves_are_the_whole(name, reduce, tmp_path):
    given = options(name, reduce=reduce)
    whole = lt.simulate(linear(), name, steps=60, **given)
    half = lt.simulate(linear(), name, steps=25, **given)
    same(half.extend(35), whole)
    half.save(tmp_path / "half.npz")
    # The problem and the method are made again from the file.
    same(lt.Trajectory.load(tmp_path / "half.npz").extend(35), whole)
    same(lt.rerun(json.loads(json.dumps(whole.config))), whole)


@pytest.mark.parametrize("name", ["lora", "lora-one", "p-lora", "lora-adamw", "full", "adalora"])
def test_schedules_go_on_where_they_were(name, tmp_path):
    rates = [schedules.cosine(0.1, steps=50, warmup=5), 0.02]
    given = options(name, learning_rate=rates)
    whole = lt.simulate(linear(), name, steps=40, **given)
    assert whole.axes == ("learning_rate", "seed")
    half = lt.simulate(linear(), name, steps=13, **given)
    same(half.extend(27), whole)
    half.save(tmp_path / "half.npz")
    same(lt.Trajectory.load(tmp_path / "half.npz").extend(20).extend(7), whole)


def test_a_schedule_is_the_rate_of_each_step():
    """A schedule against the runs of one step each that it stands for."""
    problem, rates = linear(), [0.1, 0.2, 0.05, 0.3]
    for name in ("lora", "lora-one-preconditioned", "full"):
        run = lt.simulate(problem, name, rank=2, learning_rate=lambda t: rates[t], steps=4)
        if name == "full":
            at = torch.zeros(2, 8, 7, dtype=torch.float64)
            for eta in rates:
                E = at - problem.shift.dense()
                at = at - eta * problem.covariance.matrix @ E
            found = run.final.dense()
        else:
            last = run.initial
            rule = "p-lora" if "pre" in name else "lora"
            for eta in rates:
                last = lt.simulate(
                    problem, rule, rank=2, learning_rate=eta, steps=1, initial=last
                ).final
            at, found = last.dense(), run.final.dense()
        # Four steps of products with at most 8 terms, in two sets of coordinates.
        torch.testing.assert_close(found, at, rtol=0, atol=rounding(8, operations=4 * 4))


def test_runs_that_go_on_from_the_same_one_have_rates_of_their_own():
    """One that is extended on the way of another, as by a second thread, changes nothing of it."""

    def run(steps):
        problem = lt.sample_linear(d=12, k=9, true_rank=2, samples=100, seeds=[0])
        rate = schedules.cosine(peak=0.3, steps=400)
        return lt.simulate(problem, "lora", rank=2, learning_rate=rate, steps=steps)

    first, inside = run(200), []

    def progress(done):
        if not inside:
            inside.append(first.extend(100).extend(10))

    long = run(400)
    joined = first.extend(200, progress=progress)
    assert inside
    assert torch.equal(joined["loss"], long["loss"])
    assert torch.equal(inside[0]["loss"], long["loss"][:311])
    assert torch.equal(first.extend(200)["loss"], long["loss"])


def test_a_step_that_a_schedule_was_not_asked_for_is_an_error():
    rates = Rates(schedules.cosine(peak=0.3, steps=40), 0, 1, torch.zeros(1)).over(10, 20)
    assert rates.at(10) > rates.at(19)
    for t in (9, 20, -1):
        with pytest.raises(IndexError, match=rf"10 <= t < 20; got t={t};"):
            rates.at(t)


def test_a_bad_schedule_is_refused_before_the_first_step():
    with pytest.raises(ValueError, match="learning_rate at step 3 must be finite and >= 0"):
        lt.simulate(linear(), "lora", rank=2, learning_rate=lambda t: 3.0 - 1.1 * t, steps=5)


@pytest.mark.parametrize(
    "rate", [np.float64(0.1), np.array([0.1, 0.2]), torch.tensor([0.1, 0.2]), range(1, 3), 1]
)
def test_rates_of_any_kind_can_be_saved(rate, tmp_path):
    run = lt.simulate(linear(), "lora", rank=2, learning_rate=rate, steps=2)
    run.save(tmp_path / "run.npz")
    back = lt.Trajectory.load(tmp_path / "run.npz")
    assert back.config["learning_rate"] == run.config["learning_rate"]
    assert back.coordinates == run.coordinates


def test_diverged_and_vector_runs_go_on(tmp_path):
    given = options("lora-one", learning_rate=[0.1, 60.0], record=("loss", "singular_values"))
    whole = lt.simulate(linear(), "lora-one", steps=200, **given)
    assert whole.diverged.any(1).tolist() == [False, True]
    same(lt.simulate(linear(), "lora-one", steps=90, **given).extend(110), whole)
    assert whole.record_axes == {"singular_values": "value"}


def test_given_factors_and_relu_problems_go_on(tmp_path):
    problem = lt.sample_relu(samples=50, **RELU)
    start = lt.simulate(problem, "lora", rank=2, learning_rate=0.1, steps=5).final
    given = options("lora", initial=start)
    whole = lt.simulate(problem, "lora", steps=30, **given)
    half = lt.simulate(problem, "lora", steps=20, **given)
    half.save(tmp_path / "half.npz")
    same(lt.Trajectory.load(tmp_path / "half.npz").extend(10), whole)
    with pytest.raises(ValueError, match="initial was given by hand; hand it in again"):
        lt.rerun(whole.config)
    same(lt.rerun(whole.config, initial=start), whole)
    other = Factors(start.A + 1, start.B)
    with pytest.raises(ValueError, match="initial handed in is not the one that was recorded"):
        lt.rerun(whole.config, initial=other)


def test_a_sweep_over_init_std_is_made_again():
    given = options("lora", init_std=[0.1, 0.3], damping=0.0)
    whole = lt.simulate(linear(), "lora", steps=20, **given)
    assert whole.config["init_std"] == [0.1, 0.3]
    same(lt.rerun(whole.config), whole)
    one = lt.simulate(linear(), "lora", rank=2, learning_rate=0.1, steps=2, init_std=1e-5)
    assert one.config["init_std"] == 1e-5
    assert (
        lt.simulate(linear(), "lora", rank=2, learning_rate=0.1, steps=2).config["init_std"] == 0.01
    )


def test_what_is_the_users_own_is_handed_in_again(tmp_path):
    X = np.random.default_rng(0).standard_normal((40, 6))
    own = lt.LinearProblem.from_data(X, shift=np.eye(6)[:, :4])
    other = lt.LinearProblem.from_data(X + 1e-9, shift=np.eye(6)[:, :4])
    size = lt.Record("size", lambda view: view.shift.dense().abs().sum((-2, -1)))
    given = {"rank": 2, "learning_rate": 0.1, "record": ["loss", size]}
    whole = lt.simulate(own, "lora", steps=20, **given)
    lt.simulate(own, "lora", steps=12, **given).save(tmp_path / "half.npz")
    half = lt.Trajectory.load(tmp_path / "half.npz")
    with pytest.raises(ValueError, match="a LinearProblem, was made from data"):
        half.extend(8)
    with pytest.raises(ValueError, match="problem handed in is not the one that was recorded"):
        half.extend(8, problem=other)
    with pytest.raises(ValueError, match="record 'size' was the user's own"):
        half.extend(8, problem=own)
    same(half.extend(8, problem=own, records=(size,)), whole)
    with pytest.raises(ValueError, match="method handed in is not the one"):
        half.extend(8, problem=own, records=(size,), method=lt.methods.lora(init_std=0.5))


def test_a_rate_of_ones_own_is_handed_in_again(tmp_path):
    rates = [lambda t: 0.1 / (1 + t), 0.05]
    given = {"rank": 2, "learning_rate": rates}
    mine = lt.methods.lora().with_rule(lambda eta, damping: lt.methods.rules.gd(eta), name="own")
    whole = lt.simulate(linear(), mine, steps=9, **given)
    lt.simulate(linear(), mine, steps=4, **given).save(tmp_path / "half.npz")
    half = lt.Trajectory.load(tmp_path / "half.npz")
    with pytest.raises(ValueError, match=r"the rule 'own' of method .* hand the method in again"):
        half.extend(5)
    with pytest.raises(ValueError, match="learning rate was a function of the user's own"):
        half.extend(5, method=mine)
    with pytest.raises(ValueError, match="learning_rate handed in is not the one"):
        half.extend(5, method=mine, learning_rate=[lambda t: 0.2 / (1 + t), 0.05])
    same(half.extend(5, method=mine, learning_rate=rates), whole)
    with pytest.raises(ValueError, match="learning_rate handed in is not the one"):
        whole.extend(1, learning_rate=0.05)


def test_files_of_former_versions_stay_readable(tmp_path):
    run = lt.simulate(linear(), "lora-ga", rank=2, learning_rate=0.1, steps=5)
    run.save(tmp_path / "run.npz")
    arrays = storage.load_arrays(tmp_path / "run.npz")
    meta = json.loads(str(arrays["meta"]))
    for name in ("record_axes", "reasons", "resume"):
        del meta[name]
    meta["config"] = {"method": "lora-ga", "hyper": {}, "rank": 2, "steps": 5}
    kept = {n: v for n, v in arrays.items() if not n.startswith(("resume", "status.factor"))}
    kept.pop("factor_steps")
    storage.save_arrays(tmp_path / "old.npz", kept | {"meta": np.array(json.dumps(meta))})
    old = lt.Trajectory.load(tmp_path / "old.npz")
    assert torch.equal(old["loss"], run["loss"])
    assert old.config["method"] == "lora-ga"
    with pytest.raises(ValueError, match="holds no state to go on from"):
        old.extend(3)


def test_factors_over_time():
    run = lt.simulate(
        linear(), "lora-one", rank=2, learning_rate=0.1, steps=20, keep_factors=8, every=4
    )
    assert run.factor_steps == (0, 8, 16)
    assert run.factors.A.shape == (3, 2, 8, 2)
    for i, t in enumerate(run.factor_steps):
        # The same run, stopped there.
        given = {"rank": 2, "learning_rate": 0.1, "steps": max(t, 1)}
        final = run.initial if t == 0 else lt.simulate(linear(), "lora-one", **given).final
        for found, expected in zip((run.factors.A[i], run.factors.B[i]), final, strict=True):
            close(found, expected, rounding(8, operations=2))  # lifted from coordinates
    longer = run.extend(20)
    assert longer.factor_steps == (0, 8, 16, 24, 32, 40)
    with pytest.raises(ValueError, match="keep them more rarely"):
        lt.simulate(
            linear(), "lora", rank=2, learning_rate=0.1, steps=10**10, every=10**9, keep_factors=1
        )


def test_until_stops_at_the_last_run_to_arrive():
    given = {"rank": 2, "learning_rate": [0.05, 0.2], "record": ("loss",)}
    free = lt.simulate(linear(), "lora-one", steps=500, **given)
    level = 1e-4
    until = lt.Until("loss", level, relative=True)
    run = lt.simulate(linear(), "lora-one", steps=500, until=until, **given)
    expected = (free["loss"] <= level * free["loss"][0]).int().argmax(0)
    assert torch.equal(run.reached, expected)
    assert int(run.steps[-1]) == int(expected.max())
    assert torch.equal(run["loss"], free["loss"][: len(run.steps)])
    rest = run.extend(500 - int(run.steps[-1]))
    assert torch.equal(rest["loss"], free["loss"])
    with pytest.raises(ValueError, match="record of until must be one of loss"):
        lt.simulate(linear(), "lora", steps=5, until=lt.Until("risk", 1.0), **given)


@pytest.mark.parametrize("every", [1, 7])
@pytest.mark.parametrize("relative", [True, False])
def test_until_ends_what_goes_on_as_well(every, relative, tmp_path) -> None:
    """Some runs were there before, others were not: as one longer run, also from a file."""
    level = 1e-4
    given = {"rank": 2, "learning_rate": [0.05, 0.2], "record": ("loss",), "every": every}
    whole = lt.simulate(linear(), "lora-one", steps=500, **given)
    bound = level * whole["loss"][0] if relative else torch.full_like(whole["loss"][0], level)
    there = (whole["loss"] <= bound).int().argmax(0)
    expected = torch.from_numpy(whole.steps)[there]
    begin = int(expected.min()) + 3
    assert int(expected.min()) <= begin < int(expected.max()) < 500
    until = lt.Until("loss", level, relative=relative)
    begun = lt.simulate(linear(), "lora-one", steps=begin, until=until, **given)
    begun.save(tmp_path / "begun.npz")
    for run in (begun, lt.Trajectory.load(tmp_path / "begun.npz")):
        assert bool((run.reached == -1).any())
        twice = run.extend(2).extend(498 - begin)
        for rest in (run.extend(500 - begin), twice):
            assert torch.equal(rest.reached, expected)
            assert np.array_equal(rest.steps, whole.steps[: int(there.max()) + 1])
            assert torch.equal(rest["loss"], whole["loss"][: len(rest.steps)])
            again = lt.rerun(rest.config)
            assert torch.equal(again["loss"], rest["loss"])
            assert torch.equal(again.reached, expected)
        # All of them are there: what goes on then was asked for.
        further = rest.extend(14)
        assert int(further.steps[-1]) == int(rest.steps[-1]) + 14
        assert torch.equal(further.reached, expected)


@pytest.mark.parametrize("name", lt.RECORDS)
def test_until_takes_every_record_that_is_a_number_and_is_known(name) -> None:
    """A vector has no level, and what the problem does not know never comes to one."""
    problem = linear()
    given = {"rank": 2, "learning_rate": 0.1, "steps": 3, "record": ("loss", name)}
    if name == "loss":
        given["record"] = ("loss",)

    def simulate():
        return lt.simulate(problem, "lora-one", until=lt.Until(name, 1e9), **given)

    if lt.RECORDS[name].axis is not None:
        with pytest.raises(ValueError, match=r"must have one value for each run; got .*a vector"):
            simulate()
    elif lt.RECORDS[name].missing(problem) is not None:
        with pytest.raises(ValueError, match=f"must be known; got {name!r}, which needs"):
            simulate()
    else:
        assert bool((simulate().reached == 0).all())


def test_another_problem_or_method_is_refused_without_a_file_too() -> None:
    """What is handed in to a run that knows its own is compared with it, not ignored."""
    size = {"d": 6, "k": 5, "true_rank": 2, "samples": 30}
    problem = lt.sample_linear(**size)
    run = lt.simulate(problem, "lora", rank=2, learning_rate=0.1, steps=3)
    with pytest.raises(ValueError, match="the problem handed in is not the one"):
        run.extend(2, problem=lt.sample_linear(**size, seeds=[7]))
    with pytest.raises(ValueError, match="the method handed in is not the one"):
        run.extend(2, method=lt.methods.lora(init_std=0.5))
    longer = run.extend(2, problem=lt.sample_linear(**size), method=lt.methods.lora())
    assert longer["loss"].equal(run.extend(2)["loss"])


def test_dense_sensing_goes_on_in_the_form_it_began_in():
    """Five steps and all of them are taken by the same products, which are chosen by sizes."""
    problem = lt.sample_sensing(ensemble="dense", d=20, k=10, true_rank=3, measurements=800)
    given = {"rank": 4, "learning_rate": 0.1}
    whole = lt.simulate(problem, "lora-one", steps=40, **given)
    longer = lt.simulate(problem, "lora-one", steps=5, **given).extend(35)
    same(longer, whole)
    assert all(torch.equal(*pair) for pair in zip(longer.final, whole.final, strict=True))

"""The loop: axes, recording times, statuses, divergence, saving."""

import numpy as np
import pytest
import tolerance
import torch
from tolerance import near, roots, rounding

import loraone_theory as lt
from loraone_theory.core import threads
from loraone_theory.dynamics import execution, recorder
from loraone_theory.problems.linear.blocks import gradients_by_rows


def problem(**changes):
    options = {"d": 12, "k": 10, "true_rank": 2, "samples": 120, "seeds": (0, 1, 2)} | changes
    return lt.sample_linear(**options)


def test_axes_and_shapes_of_a_sweep():
    run = lt.simulate(
        problem(),
        "p-lora",
        rank=3,
        learning_rate=[0.1, 0.2, 0.3, 0.4],
        init_std=[1e-1, 1e-2],
        damping=[1e-3, 1e-2, 1e-1, 1.0, 2.0],
        steps=5,
        seeds=(4, 5, 6),
    )
    assert run.axes == ("init_std", "learning_rate", "damping", "seed")
    assert run["risk"].shape == (6, 2, 4, 5, 3)
    assert run.status.shape == (2, 4, 5, 3)
    assert run.final.A.shape == (2, 4, 5, 3, 12, 3)
    assert run.coordinates["damping"] == (1e-3, 1e-2, 1e-1, 1.0, 2.0)
    assert run.coordinates["seed"] == (4, 5, 6)


@pytest.mark.parametrize("name", ["init_std", "learning_rate", "damping"])
def test_a_sweep_equals_its_values_one_by_one(name):
    values = [0.05, 0.2, 0.4]
    fixed = {"init_std": 0.3, "learning_rate": 0.1, "damping": 0.01}
    options = {"rank": 3, "steps": 30, "seeds": (4, 5, 6), "record": tuple(lt.RECORDS)}
    swept = lt.simulate(problem(), "p-lora", **options, **(fixed | {name: values}))
    for i, value in enumerate(values):
        alone = lt.simulate(problem(), "p-lora", **options, **(fixed | {name: value}))
        for record in lt.RECORDS:
            # 30 steps of four products and two inverses that damping holds to 1/0.01.
            found, expected = swept[record][:, i], alone[record]
            size = float(expected.nan_to_num().abs().max())
            by_entry = near(12, operations=6 * 30, condition=1 / 0.01, scale=size)
            torch.testing.assert_close(found, expected, **by_entry, equal_nan=True)


def test_trials_on_a_single_problem_and_one_seed_for_all():
    single = problem(seeds=(0,))
    many = lt.simulate(single, "lora", rank=2, learning_rate=0.1, steps=3, seeds=range(5))
    assert many["risk"].shape == (4, 5)
    shared = lt.simulate(problem(), "lora", rank=2, learning_rate=0.1, steps=3, seeds=[7])
    assert shared["risk"].shape == (4, 3)
    assert torch.equal(shared.initial.A[0], shared.initial.A[2])


def test_a_trial_has_the_seed_of_its_instance_and_both_are_told():
    drawn = problem(seeds=(5, 6, 7))
    options = {"rank": 2, "learning_rate": 0.1, "steps": 3}
    run = lt.simulate(drawn, "lora", **options)
    assert run.coordinates == {"seed": (5, 6, 7)}
    for i, seed in enumerate((5, 6, 7)):
        alone = lt.simulate(problem(seeds=[seed]), "lora", **options)
        assert torch.equal(alone.initial.A[0], run.initial.A[i])
    other = lt.simulate(drawn, "lora", **options, seeds=(0, 1, 2))
    assert other.coordinates == {"seed": (0, 1, 2), "problem_seed": (5, 6, 7)}
    assert not torch.equal(other.initial.A, run.initial.A)
    shared = lt.simulate(drawn, "lora", **options, seeds=[4])
    assert shared.coordinates == {"seed": (4, 4, 4), "problem_seed": (5, 6, 7)}
    trials = lt.simulate(problem(seeds=[9]), "lora", **options, seeds=range(2))
    assert trials.coordinates == {"seed": (0, 1), "problem_seed": (9, 9)}


def test_several_instance_axes():
    rng = np.random.default_rng(0)
    data = lt.LinearProblem.from_data(
        rng.standard_normal((2, 3, 50, 6)), shift=rng.standard_normal((6, 4))
    )
    run = lt.simulate(data, "lora-one", rank=4, learning_rate=0.05, steps=4, seeds=(0, 1, 2))
    assert run.axes == ("instance0", "seed")
    assert run["risk"].shape == (5, 2, 3)


def test_recording_every_so_often_takes_the_same_values():
    options = {"rank": 2, "learning_rate": 0.2, "steps": 25, "record": ("risk", "left_alignment")}
    dense = lt.simulate(problem(), "lora", **options)
    sparse = lt.simulate(problem(), "lora", every=10, **options)
    assert sparse.steps.tolist() == [0, 10, 20, 25]
    for name in options["record"]:
        torch.testing.assert_close(sparse[name], dense[name][sparse.steps], rtol=0, atol=0)


def test_nothing_recorded():
    run = lt.simulate(problem(), "lora", rank=2, learning_rate=0.2, steps=4, record=())
    assert dict(run.records) == {}
    assert bool(torch.isfinite(run.final.A).all())


def test_divergence_is_dated_and_disturbs_nobody():
    rates = [0.2, 50.0, 0.1]
    options = {"rank": 2, "steps": 400, "record": ("risk", "left_alignment")}
    run = lt.simulate(problem(), "lora-one", learning_rate=rates, **options)
    assert run.diverged.tolist() == [[False] * 3, [True] * 3, [False] * 3]
    for i, rate in ((0, 0.2), (2, 0.1)):
        alone = lt.simulate(problem(), "lora-one", learning_rate=rate, **options)
        roots(run["risk"][:, i], alone["risk"], rounding(12, operations=4 * 400))
    for j, status in enumerate(run.status[1]):
        assert status.outcome is lt.Outcome.DIVERGED
        assert "lower the learning rate" in str(status)
        assert f"at step {status.step}" in str(status)
        until = lt.simulate(
            problem(), "lora-one", learning_rate=50.0, rank=2, steps=status.step - 1, record=()
        )
        assert bool(torch.isfinite(problem().loss(until.final)[j]))
        beyond = lt.simulate(
            problem(), "lora-one", learning_rate=50.0, rank=2, steps=status.step, record=()
        )
        assert not bool(torch.isfinite(problem().loss(beyond.final)[j]))
        assert bool(run["risk"][status.step :, 1, j].isnan().all())
        assert not bool(run["risk"][: status.step, 1, j].isnan().any())


def test_all_diverged_stops_early_with_nan_records():
    run = lt.simulate(problem(), "p-lora", rank=2, learning_rate=1e6, steps=10**6, every=10**5)
    assert run.diverged.all()
    assert bool(run["risk"][1:].isnan().all())


def test_truncation_is_visible():
    once = lt.simulate(problem(), "p-lora", rank=2, learning_rate=0.3, steps=9)
    assert {(s.outcome, s.count, s.step) for s in once.status} == {(lt.Outcome.TRUNCATED, 1, 1)}
    A, B = once.initial
    first = lt.simulate(problem(), "p-lora", rank=2, learning_rate=0.3, steps=1)
    # B₀ = 0, so A stays, up to two products with the basis that the run was reduced to.
    by_entry = near(12, operations=2, scale=float(A.norm(dim=-2).max()))
    torch.testing.assert_close(first.final.A, A, **by_entry)
    assert float(B.abs().max()) == 0.0
    excess = lt.simulate(problem(), "lora-one-preconditioned", rank=4, learning_rate=0.3, steps=9)
    assert {s.count for s in excess.status} == {9}
    damped = lt.simulate(
        problem(), "lora-one-preconditioned", rank=4, learning_rate=0.3, steps=9, damping=1e-3
    )
    assert {s.outcome for s in damped.status} == {lt.Outcome.COMPLETED}


@pytest.mark.parametrize("method", ["lora-ga", "lora-one", "full"])
def test_saved_and_loaded(tmp_path, method):
    run = lt.simulate(
        problem(), method, rank=2, learning_rate=[0.1, 60.0], steps=200, seeds=(1, 2, 3)
    )
    run.save(tmp_path / "run.npz")
    back = lt.Trajectory.load(tmp_path / "run.npz")
    assert back.axes == run.axes
    assert back.coordinates == run.coordinates
    assert (back.status == run.status).all()
    assert back.config["method"] == method
    for name in run.records:
        torch.testing.assert_close(back[name], run[name], rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(
        back.learned_shift().dense(), run.learned_shift().dense(), rtol=0, atol=0, equal_nan=True
    )
    assert set(run.to_numpy()) == {"steps", "loss", "risk"}


def test_offset_methods_start_where_the_function_is_unchanged():
    run = lt.simulate(problem(), "lora-ga", rank=2, learning_rate=0.1, steps=1, record=("error",))
    shift = problem().shift.dense()
    expected = torch.linalg.matrix_norm(shift)
    torch.testing.assert_close(run["error"][0], expected, rtol=rounding(12 * 10), atol=0)
    A, B = run.initial
    tolerance.close(run.offset.dense(), A @ B, rounding(12, operations=2))  # lifted and multiplied


def test_progress_reaches_the_end():
    seen = []
    lt.simulate(problem(), "lora", rank=2, learning_rate=0.1, steps=300, progress=seen.append)
    assert seen[-1] == 300
    assert seen == sorted(seen)


def test_the_randomised_svd_is_seeded_and_close():
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    options = lt.SVDOptions("lowrank", q=99, niter=8, seed=3)
    runs = [
        lt.simulate(problem(), lt.methods.lora_one(svd=svd), rank=2, learning_rate=0.1, steps=1)
        for svd in (options, options, lt.SVDOptions())
    ]
    assert torch.equal(runs[0].initial.A, runs[1].initial.A)
    # q is more than all there is, so the sketch is exact: a product and a QR in each of 8 rounds.
    tolerance.close(
        runs[0].initial.dense(), runs[2].initial.dense(), rounding(12, operations=2 * 8)
    )
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_and_device_are_those_of_the_problem(dtype, device):
    run = lt.simulate(
        problem(dtype=dtype, device=device),
        "lora-one-preconditioned",
        rank=2,
        learning_rate=0.3,
        steps=400,
        every=100,
        record=tuple(lt.RECORDS),
    )
    for tensor in (*run.records.values(), *run.final):
        assert tensor.dtype == getattr(torch, dtype)
        assert tensor.device.type == device
    # Entries move until η times a gradient is less than what sums of 12 terms round.
    moved = rounding(12, operations=1 / 0.3, dtype=getattr(torch, dtype))
    assert float(run["risk"][-1].max()) < 0.5 * moved**2


def test_one_pair_of_factors_meets_many_instances():
    """A batch axis of 1 in the factors broadcasts, also where large problems go by rows."""
    many = problem()
    start = lt.simulate(many, "lora", rank=3, learning_rate=0.1, steps=3).final
    one = lt.Factors(start.A[:1], start.B[:1])
    whole = lt.Factors(one.A.expand(3, -1, -1), one.B.expand(3, -1, -1))
    assert torch.equal(many.residual(one), many.residual(whole))
    assert torch.equal(many.loss(one), many.loss(whole))
    banded = lt.sample_linear_matrix_free(d=12, k=10, true_rank=2, samples=120, seeds=(0, 1, 2))
    by_rows = gradients_by_rows(banded.covariance, banded.dense_target, one, 5)
    for part, other in zip(banded.gradients(whole), by_rows, strict=True):
        # Sums of at most 12 terms in another order.
        torch.testing.assert_close(part, other, rtol=0, atol=rounding(12) * float(part.abs().max()))


def test_long_records_are_measured_in_pieces(monkeypatch):
    """The residuals of the snapshots held at a time are bounded, and no record changes."""
    options = {"rank": 2, "learning_rate": 0.1, "steps": 9, "record": ("risk", "error")}
    whole = lt.simulate(problem(), "lora-one", **options, reduce="never")
    counts = []
    measured = lt.LinearProblem.residual

    def residual(self, shift):
        counts.append(shift.shape[:-2].numel())
        return measured(self, shift)

    monkeypatch.setattr(lt.LinearProblem, "residual", residual)
    monkeypatch.setattr(recorder, "RESIDUAL_BYTES", 4 * 3 * 12 * 10 * 8)
    pieces = lt.simulate(problem(), "lora-one", **options, reduce="never")
    assert max(counts) == 4 * 3  # four snapshots of three runs
    for name in options["record"]:
        # Batched sums may run in another order: 120 terms.
        torch.testing.assert_close(whole[name], pieces[name], rtol=rounding(120), atol=0)


def test_threads_follow_the_work_of_a_step(monkeypatch):
    """N samples count, not only the factors, which are the same for every N."""
    seen = []

    def threads_for(entries, device, *most):
        if not most:  # measuring says how many threads it may have
            seen.append(entries)
        return threads.threads_for(entries, device, *most)

    monkeypatch.setattr(execution, "threads_for", threads_for)
    sizes = {"d": 6, "k": 5, "true_rank": 2, "relative_shift": 0.1, "seeds": (0, 1)}
    for relu in (lt.sample_relu(**sizes, samples=40), lt.sample_relu_population(**sizes)):
        lt.simulate(relu, "lora-one", rank=2, learning_rate=[0.1, 0.2, 0.3], steps=1)
    assert seen[1::2] == [2 * 3 * 40 * 5, 2 * 3 * 6 * 5]

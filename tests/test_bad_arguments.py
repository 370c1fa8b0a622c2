"""Every bad argument gets one clear error: the rule, what was given, the remedy."""

import numpy as np
import pytest
import torch

import loraone_theory as lt
from loraone_theory import storage


def problem(**changes):
    options = {"d": 8, "k": 6, "true_rank": 2, "samples": 40} | changes
    return lt.sample_linear(**options)


def simulate(method="lora", on=None, **changes):
    options = {"rank": 2, "learning_rate": 0.1, "steps": 3} | changes
    return lt.simulate(problem() if on is None else on, method, **options)


def from_data(X=None, shift=None, **more):
    X = np.random.default_rng(0).standard_normal((20, 4)) if X is None else X
    return lt.LinearProblem.from_data(X, shift=np.eye(4)[:, :3] if shift is None else shift, **more)


def with_nan():
    X = np.ones((20, 4))
    X[3, 2] = np.nan
    return X


ones = torch.ones
f64 = torch.float64
given = lt.Factors(ones(8, 2, dtype=f64), ones(2, 6, dtype=f64))

CASES = {
    "rank too large": (lambda: simulate(rank=7), r"1 <= rank <= min\(d, k\).*rank=7 with d=8, k=6"),
    "rank zero": (lambda: simulate(rank=0), r"rank must be >= 1; got rank=0"),
    "rank of another type": (lambda: simulate(rank=2.0), r"rank must be an integer; got 2.0"),
    "LoRA-GA directions": (
        lambda: simulate("lora-ga", rank=4),
        r"2 \* rank <= min\(d, k\).*rank=4 with d=8, k=6; lower the rank",
    ),
    "non-finite X": (lambda: from_data(with_nan()), r"X must be finite; got 1 NaN or infinite"),
    "X and shift": (
        lambda: from_data(shift=np.eye(5)),
        r"as many rows as X has columns.*X \(20, 4\), shift \(5, 5\)",
    ),
    "pretrained": (
        lambda: from_data(pretrained=np.ones((4, 4))),
        r"pretrained and shift must have the same last two dimensions.*\(4, 4\).*\(4, 3\)",
    ),
    "factors of shift": (
        lambda: from_data(shift=lt.Factors(ones(4, 2, dtype=f64), ones(3, 4, dtype=f64))),
        r"shift must be A \(..., d, r\) and B \(..., r, k\)",
    ),
    "batches": (
        lambda: from_data(np.ones((3, 20, 4)), np.ones((2, 4, 3))),
        r"batch dimensions of X and shift must broadcast; got \(3,\) and \(2,\)",
    ),
    "vector": (lambda: from_data(np.ones(4)), r"X must have at least 2 dimensions; got shape \(4,"),
    "empty": (lambda: from_data(np.ones((0, 4))), r"X must not be empty"),
    "list": (lambda: from_data([[1.0]]), r"X must be a torch tensor or a numpy array; got list"),
    "integer X": (
        lambda: from_data(np.ones((20, 4), dtype=int)),
        r"X must be float32 or float64; got int64; convert it first",
    ),
    "half X": (lambda: from_data(ones(20, 4).half()), r"X must be float32 or float64; got float16"),
    "mixed dtypes": (
        lambda: from_data(np.ones((20, 4), dtype=np.float32)),
        r"X and shift must have the same dtype; got torch.float32 and torch.float64",
    ),
    "zero shift": (lambda: from_data(shift=np.zeros((4, 3))), r"shift must not be zero"),
    "ranks in a batch": (
        lambda: from_data(shift=np.stack([np.eye(4), np.ones((4, 4))])),
        r"same rank in every instance.*\[4, 1\]",
    ),
    "unknown method": (
        lambda: simulate("lora1"),
        r"method must be one of full, .*got 'lora1'; did",
    ),
    "unknown record": (
        lambda: simulate(record=("risks",)),
        r"record must be one of loss, .*got 'risks'; did you mean 'risk'",
    ),
    "record string": (lambda: simulate(record="risk"), r"record must be a sequence of names"),
    "balance of full": (lambda: simulate("full", record=("balance",)), r"'balance' is defined for"),
    "steps": (lambda: simulate(steps=0), r"steps must be >= 1; got steps=0"),
    "every": (lambda: simulate(every=0), r"every must be >= 1"),
    "learning rate": (lambda: simulate(learning_rate=0.0), r"learning_rate must be finite and > 0"),
    "one of several": (
        lambda: simulate(learning_rate=[0.1, -1.0]),
        r"learning_rate must be finite and > 0; got learning_rate=-1.0",
    ),
    "learning rate text": (lambda: simulate(learning_rate="a"), r"learning_rate must be a number"),
    "no learning rates": (lambda: simulate(learning_rate=[]), r"at least one value"),
    "damping": (lambda: simulate("p-lora", damping=-1), r"damping must be finite and >= 0"),
    "damping unused": (lambda: simulate("lora", damping=0.1), r"'lora' inverts nothing"),
    "init_std unused": (lambda: simulate("lora-one", init_std=0.1), r"'lora-one' has none"),
    "init_std twice": (
        lambda: simulate(init_std=0.1, initial=given),
        r"init_std and initial exclude each other",
    ),
    "init_std list": (lambda: lt.methods.lora(init_std=[0.1, 0.2]), r"pass the sequence to simul"),
    "init_std sign": (lambda: lt.methods.lora(init_std=-1.0), r"init_std must be finite and > 0"),
    "scale": (lambda: lt.methods.lora(scale=0), r"scale must be finite and > 0"),
    "ratio": (
        lambda: lt.methods.lora_plus(ratio=0.5),
        r"ratio of rule 'lora-plus' must satisfy 1 <= ratio; got .*1 is plain LoRA",
    ),
    "initial shape": (
        lambda: simulate(rank=3, initial=given),
        r"initial must be A \(..., 8, 3\) and B \(..., 3, 6\); got A \(8, 2\)",
    ),
    "initial dtype": (
        lambda: simulate(initial=lt.Factors(ones(8, 2), ones(2, 6))),
        r"problem and initial.A must have the same dtype",
    ),
    "initial batch": (
        lambda: simulate(initial=lt.Factors(ones(3, 8, 2, dtype=f64), ones(3, 2, 6, dtype=f64))),
        r"must broadcast to those of the runs; got \(3,\) for runs \(1,\)",
    ),
    "initial with an offset": (
        lambda: simulate("lora-ga", initial=given),
        r"another problem; to go on from where a run stopped use run.extend\(steps\)",
    ),
    "initial of a core": (lambda: simulate("lora-sb", initial=given), r"'lora-sb' trains sARB"),
    "seeds and instances": (
        lambda: simulate(on=problem(seeds=(0, 1, 2)), seeds=(0, 1)),
        r"trial i runs on instance i.*2 seeds for 3 instances",
    ),
    "seeds as a count": (
        lambda: simulate(seeds=3),
        r"write seeds=\[3\] for the one seed 3, or seeds=range\(3\) for as many as that",
    ),
    "seeds as a number": (lambda: simulate(seeds=1.5), r"must be a list of seeds; got 1.5"),
    "seeds as a word": (lambda: simulate(seeds="12"), r"must be a list of seeds; got '12'"),
    "seeds of a sampler as a count": (
        lambda: lt.sample_linear(d=4, k=3, true_rank=1, samples=8, seeds=2),
        r"write seeds=\[2\] for the one seed 2",
    ),
    "seed sign": (lambda: simulate(seeds=(-1,)), r"seeds must be >= 0"),
    "no seeds": (lambda: simulate(seeds=()), r"at least one seed"),
    "reduce": (lambda: simulate(reduce="yes"), r"reduce must be one of auto, never"),
    "true rank": (lambda: problem(true_rank=7), r"true_rank must satisfy .*true_rank=7"),
    "spectrum length": (lambda: problem(spectrum=[1.0]), r"must hold true_rank=2 values; got 1"),
    "spectrum order": (lambda: problem(spectrum=[1.0, 2.0]), r"positive and descending"),
    "spectrum twice": (
        lambda: problem(spectrum=[2.0, 1.0], condition_number=3.0),
        r"either spectrum or condition_number",
    ),
    "condition number": (lambda: problem(condition_number=0.5), r"condition_number must be >= 1"),
    "device": (lambda: problem(device="gpu"), r"device must be cpu or cuda"),
    "dtype": (lambda: problem(dtype="int8"), r"dtype must be float32 or float64; got 'int8'"),
    "reduce another": (lambda: lt.reduce("problem"), r"only the linear problem can be reduced"),
    "reduce misfit": (
        lambda: lt.reduce(problem(), lt.Factors(ones(7, 2, dtype=f64), ones(2, 6, dtype=f64))),
        r"initial must be A \(..., 8, r\)",
    ),
    "spectrum which": (lambda: problem().covariance_spectrum("some"), r"which must be one of"),
    "angles rank": (
        lambda: lt.metrics.subspace_sine(np.eye(3), np.eye(3), rank=4),
        r"rank must satisfy .*rank=4 with d=3, k=3",
    ),
    "angles rows": (
        lambda: lt.metrics.principal_angles(np.eye(3), np.eye(4), rank=1),
        r"must share their rows",
    ),
    "angles side": (
        lambda: lt.metrics.subspace_sine(np.eye(3), np.eye(3), rank=1, side="up"),
        r"side must be one of left, right",
    ),
    "floor rank": (lambda: lt.predict.floor(problem(), "lora", rank=9), r"rank must satisfy"),
    "rate rank": (
        lambda: lt.predict.local_rate(
            problem(),
            learning_rate=0.1,
            solution=given._replace(A=ones(8, 3, dtype=f64), B=ones(3, 6, dtype=f64)),
        ),
        r"its rank must equal true_rank; got rank=3 with true_rank=2",
    ),
    "svd": (
        lambda: simulate(lt.methods.lora_one(svd=lt.SVDOptions("fast"))),
        r"svd must be one of exact, lowrank",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_error(case):
    call, message = CASES[case]
    with pytest.raises((TypeError, ValueError), match=message):
        call()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_absent_device():
    with pytest.raises(ValueError, match="this machine has no CUDA; use cpu"):
        problem(device="cuda")


def test_writing_into_a_missing_folder_leaves_nothing(tmp_path):
    run = simulate()
    with pytest.raises(FileNotFoundError, match="must exist before it is written to"):
        run.save(tmp_path / "absent" / "run.npz")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_keeps_the_old_file(tmp_path):
    target = tmp_path / "data.json"
    storage.save_json(target, {"a": 1})
    with pytest.raises(TypeError, match="cannot write object as JSON"):
        storage.save_json(target, {"a": object()})
    assert storage.load_json(target) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["data.json"]


def test_pickles_are_refused(tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, steps=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        lt.Trajectory.load(path)

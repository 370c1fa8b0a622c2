"""`loraone simulate --data`: inputs and labels of a user's own."""

from pathlib import Path

import numpy as np
import pytest
import torch

import loraone_theory as lt
from loraone_theory.cli import given, main
from loraone_theory.core.files import DamagedFile


def files(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((40, 5)), rng.standard_normal((40, 4))
    np.save(folder / "X.npy", X)
    np.save(folder / "W.npy", np.zeros((5, 4)))
    np.savetxt(folder / "Y.csv", Y, delimiter=",", header="a,b,c,d", comments="")
    return X, Y


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def test_a_run_on_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The loss ends at the least of rank 2, from the singular values of the fitted part."""
    X, Y = files(tmp_path)
    code = run(
        "simulate", "lora-one", "--data", tmp_path / "X.npy", "--labels", tmp_path / "Y.csv",
        "--weights", tmp_path / "W.npy", "--rank", 2, "--steps", 400, "--learning-rate", 0.2,
        "--trials", 1, "--save", tmp_path / "run.npz",
    )  # fmt: skip
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "does not know" in said.out
    fitted = X @ np.linalg.lstsq(X, Y, rcond=None)[0]
    tail = np.linalg.svd(fitted, compute_uv=False)[2:]
    least = (((Y - fitted) ** 2).sum() + (tail**2).sum()) / 80
    with np.load(tmp_path / "run.npz") as saved:
        loss = saved[next(name for name in saved.files if name.endswith("loss"))]
    # 400 steps of 0.2 leave (1 − 0.2 μ)^800 of the loss; μ = 0.1 is slower than any mode here.
    assert loss.flatten()[-1] == pytest.approx(least, rel=(1 - 0.2 * 0.1) ** 800)


@pytest.mark.parametrize("sampling", ["with-replacement", "epochs"])
def test_minibatches_of_files(sampling: str, tmp_path: Path) -> None:
    """The run that Python makes of the same rows."""
    X, Y = files(tmp_path)
    code = run(
        "simulate", "lora-one", "--data", tmp_path / "X.npy", "--labels", tmp_path / "Y.csv",
        "--rank", 2, "--steps", 9, "--learning-rate", 0.05, "--seeds", 3, "--batch-size", 8,
        "--sampling", sampling, "--record", "loss", "--save", tmp_path / "run.npz",
    )  # fmt: skip
    assert code == 0
    problem = lt.LinearProblem.from_data(X, labels=Y, keep=True)
    expected = lt.simulate(
        problem, "lora-one", rank=2, steps=9, learning_rate=0.05, seeds=[3], batch_size=8,
        sampling=sampling, record=("loss",),
    )  # fmt: skip
    found = lt.Trajectory.load(tmp_path / "run.npz")
    assert torch.equal(found["loss"], expected["loss"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "X.npy"), "give what they are to predict as --labels"),
        (("--labels", "Y.csv"), "--labels goes with --data"),
        (("--data", "X.txt", "--labels", "Y.csv"), "must end in .npy or .csv"),
        (("--data", "none.npy", "--labels", "Y.csv"), "there is no file"),
        (("--data", "X.npy", "--labels", "words.csv"), "must hold a matrix of numbers"),
        (("--data", "X.npy", "--labels", "heading.csv"), "it has no row of numbers"),
        (("--data", "X.npy", "--labels", "complex.npy"), "real numbers; got dtype complex128"),
        (("--data", "X.npy", "--labels", "truth.npy"), "real numbers; got dtype bool"),
        (("--data", "X.npy", "--labels", "Y.csv", "--model", "relu"), "--model is of random"),
        (("--data", "X.npy", "--labels", "Y.csv", "--noise-std", 1), "--noise-std is of random"),
        (("--relative-shift", 0.2), "--relative-shift is of the ReLU model"),
    ],
)
def test_bad_files(
    arguments: tuple[str, ...], message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    files(tmp_path)
    (tmp_path / "words.csv").write_text("a,b\nc,d\n")
    (tmp_path / "heading.csv").write_text("a,b\n\n")
    np.save(tmp_path / "complex.npy", np.full((40, 4), 1 + 1j))
    np.save(tmp_path / "truth.npy", np.full((40, 4), True))
    monkeypatch.chdir(tmp_path)
    assert run("simulate", "lora-one", "--steps", 2, *arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said


def read(path: Path) -> np.ndarray:
    return given.read(path, torch.float64, "cpu").numpy()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2\n3,4\n", [[1, 2], [3, 4]]),
        ("a,b\n1,2\n", [[1, 2]]),
        ("\ufeff1,2\n3,4\n", [[1, 2], [3, 4]]),  # as spreadsheets write it
        ("\ufeffa,b\n1,2\n\n", [[1, 2]]),
        (" -1e3 , .5\r\n+2,3.\r\n", [[-1000, 0.5], [2, 3]]),
        ("2nd,3rd\n7,8\n", [[7, 8]]),
        ("5\n6", [[5], [6]]),
    ],
)
def test_what_a_table_holds(text: str, expected: list[list[float]], tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    assert np.array_equal(read(path), np.array(expected, dtype=float))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it has no row of numbers"),
        (b"a,b\n", "it has no row of numbers"),
        (b"1,2\n3,x\n", "could not convert string 'x'"),
        (b"1,x\n3,4\n", "could not convert string 'x'"),  # no heading: a row with a fault
        (b"1,\n3,4\n", "could not convert string ''"),
        (b"1,2\n3\n", "number of columns changed"),
        (b"1,2\n3,4 # five\n", "could not convert string '4 # five'"),
        (b"1;2\n3;4\n", "could not convert string '3;4'"),
        (b"1,2\n3,nan\n", "1 others, the first (nan) in row 2, column 2"),
        (b"a\n-inf\ninf\n", "2 others, the first (-inf) in row 1, column 1"),
        (b"1,2\n\xff\xfe,4\n", "can't decode byte"),
        (b"\0\0\0\0", "must hold a matrix of numbers between commas"),
    ],
)
def test_tables_that_are_no_matrix(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError) as info:  # noqa: PT011
        read(path)
    assert str(info.value).startswith(f"{path} must hold ")
    assert message in str(info.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 2), complex), "matrix of real numbers; got dtype complex128"),
        (np.ones((2, 2), bool), "matrix of real numbers; got dtype bool"),
        (np.array([["1", "2"]]), "matrix of real numbers; got dtype <U1"),
        (np.zeros((2, 1), "datetime64[s]"), "matrix of real numbers; got dtype datetime64"),
        (np.zeros((2, 1), [("a", "f8")]), "matrix of real numbers; got dtype"),
        (np.ones(3), "one row a sample; got shape (3,)"),
        (np.ones((2, 2, 2)), "one row a sample; got shape (2, 2, 2)"),
        (np.float64(1), "one row a sample; got shape ()"),
        (np.ones((0, 3)), "one row a sample; got shape (0, 3)"),
        (np.array([[1, np.nan]]), "1 others, the first (nan) in row 1, column 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arrays_that_are_no_matrix(array: np.ndarray, message: str, tmp_path: Path) -> None:
    path = tmp_path / "X.npy"
    np.save(path, array)
    with pytest.raises(ValueError) as info:  # noqa: PT011
        read(path)
    assert str(info.value).startswith(f"{path} must hold ")
    assert message in str(info.value)


def test_arrays_of_numbers_of_any_kind_are_read(tmp_path: Path) -> None:
    whole = np.arange(6).reshape(2, 3)
    for dtype in ("i1", ">i4", "u2", "f2", ">f8", "f4"):
        np.save(tmp_path / "X.npy", np.asfortranarray(whole.astype(dtype)))
        assert np.array_equal(read(tmp_path / "X.npy"), whole)


def test_damaged_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut anywhere, of another format, with objects: one error, and no advice to allow pickles."""
    path = tmp_path / "X.npy"
    np.save(path, np.ones((2, 3)))
    raw = path.read_bytes()
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([[1, None]], dtype=object), allow_pickle=True)
    packed = tmp_path / "packed.npz"
    np.savez(packed, np.ones((2, 2)))
    huge = raw.replace(b"(2, 3), }" + 20 * b" ", b"(2000000000000, 30000), }".ljust(29))
    assert len(huge) == len(raw)
    contents = [raw[:cut] for cut in range(0, len(raw), 7)]
    contents += [raw.replace(b"(2, 3)", b"((2, 3"), huge]
    contents += [objects.read_bytes(), packed.read_bytes(), b"1,2\n"]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(DamagedFile, match="numbers; it is cut short") as info:
            read(path)
        assert "pickle" not in str(info.value)


def test_labels_and_weights_must_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything runs or is written, in one line, with exit code 2."""
    files(tmp_path)
    np.save(tmp_path / "short.npy", np.ones((39, 4)))
    np.save(tmp_path / "turned.npy", np.ones((4, 5)))
    monkeypatch.chdir(tmp_path)
    for odd in (
        ("--labels", "short.npy"),
        ("--labels", "Y.csv", "--weights", "turned.npy"),
        ("--labels", "Y.csv", "--weights", "none.npy"),
    ):
        assert run("simulate", "lora-one", "--data", "X.npy", *odd, "--save", "run.npz") == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("error: ")
        assert said.err.count("\n") == 1
        assert not (tmp_path / "run.npz").exists()

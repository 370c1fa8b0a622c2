"""`loraone simulate --data`: inputs and labels of a user's own."""

from pathlib import Path

import numpy as np
import pytest

from loraone_theory.cli import main


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
    assert loss.flatten()[-1] == pytest.approx(least, rel=1e-6)


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

"""pandas tables in place of arrays."""

import numpy as np
import pytest
import torch

import loraone_theory as lt
from loraone_theory.core import validate

pd = pytest.importorskip("pandas", reason="pandas is not installed")


def table(seed: int, rows: int, columns: int) -> "pd.DataFrame":
    values = np.random.default_rng(seed).standard_normal((rows, columns))
    return pd.DataFrame(values, columns=[f"x{i}" for i in range(columns)])


def test_a_problem_of_tables_is_that_of_their_numbers() -> None:
    X, Y, W = table(0, 40, 5), table(1, 40, 3), table(2, 5, 3)
    held = (table(3, 7, 5), table(4, 7, 3))
    shuffled = X.sample(frac=1, random_state=0)  # rows count in the order they stand in
    for frame in (X, shuffled):
        one, two = (
            lt.LinearProblem.from_data(
                as_is(frame), labels=as_is(Y), pretrained=as_is(W),
                held_out=tuple(as_is(part) for part in held),
            )
            for as_is in (lambda t: t, lambda t: t.to_numpy())
        )  # fmt: skip
        runs = [
            lt.simulate(
                p, "lora-one", rank=2, learning_rate=0.1, steps=5, record=("loss", "test_loss")
            )
            for p in (one, two)
        ]
        for name in ("loss", "test_loss"):
            assert torch.equal(runs[0][name], runs[1][name])


def test_a_csv_read_by_pandas(tmp_path) -> None:
    X, Y = (16 * table(0, 30, 4)).round() / 16, table(1, 30, 2)  # exact in few decimals
    X.to_csv(tmp_path / "X.csv", index=False)
    read = pd.read_csv(tmp_path / "X.csv")
    one, two = (lt.LinearProblem.from_data(t, labels=Y) for t in (X, read))
    assert torch.equal(one.covariance.matrix, two.covariance.matrix)


def test_what_columns_become() -> None:
    mixed = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]})
    assert torch.equal(validate.tensor("X", mixed), torch.tensor([[1, 0.5], [2, 1.5]]).double())
    single = mixed.astype(np.float32)
    assert validate.tensor("X", single).dtype == torch.float32
    column = validate.tensor("y", mixed["a"], least_dims=1)
    assert torch.equal(column, torch.tensor([1.0, 2.0]).double())
    copied = validate.tensor("X", mixed, owned=True)
    mixed.loc[0, "a"] = 7
    assert copied[0, 0] == 1


@pytest.mark.parametrize(
    ("column", "error", "message"),
    [
        (["u", "v"], TypeError, "numbers in every column; got other things in 'b'"),
        ([True, False], TypeError, "got other things in 'b'"),
        ([1j, 2j], TypeError, "got other things in 'b'"),
        (pd.to_datetime(["2020-01-01", "2020-01-02"]), TypeError, "got other things in 'b'"),
        (pd.array([1, None], dtype="Int64"), ValueError, "X must be finite; got 1 NaN"),
        ([1.0, np.nan], ValueError, "X must be finite; got 1 NaN"),
    ],
)
def test_columns_of_other_things(column, error, message: str) -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": column})
    with pytest.raises(error, match=message):
        lt.LinearProblem.from_data(frame, labels=np.ones((2, 1)))

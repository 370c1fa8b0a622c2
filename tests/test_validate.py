"""The one gate for arguments: what passes keeps its value, what does not gets one clear error."""

import itertools
import math
import warnings
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from loraone_theory.core import validate

ARRAY = np.arange(6.0).reshape(2, 3) + 1
TENSOR = torch.from_numpy(ARRAY.copy())

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch's, about prototypes and deprecations
    ODD_TENSORS = {
        "masked tensor": torch.masked.masked_tensor(TENSOR.clone(), TENSOR < 3),
        "nested": torch.nested.nested_tensor([TENSOR[0], TENSOR[1, :2]]),
        "sparse": TENSOR.to_sparse(),
        "sparse rows": TENSOR.to_sparse_csr(),
        "quantised": torch.quantize_per_tensor(TENSOR.float(), 0.1, 0, torch.qint8),
    }

# Everything that looks like a matrix and is none, or none that can be computed with.
ODD_ARRAYS = ODD_TENSORS | {
    "masked": np.ma.masked_array(ARRAY, mask=ARRAY > 3),
    "masked, nothing masked": np.ma.masked_array(ARRAY),
    "meta": TENSOR.to("meta"),
    "complex": TENSOR.to(torch.complex128),
    "complex array": ARRAY.astype(complex),
    "booleans": TENSOR > 2,
    "boolean array": ARRAY > 2,
    "integers": TENSOR.long(),
    "integer array": ARRAY.astype(int),
    "half": TENSOR.half(),
    "bfloat16": TENSOR.bfloat16(),
    "long double": ARRAY.astype(np.longdouble),
    "strings": np.array([["1", "2"]]),
    "objects": np.array([[1.0, None]], dtype=object),
    "records": np.zeros((2, 2), dtype=[("a", "f8")]),
    "dates": np.zeros((2, 2), dtype="M8[s]"),
    "list": ARRAY.tolist(),
    "string": "1.0",
    "number": 1.0,
    "none": None,
    "vector": ARRAY[0],
    "empty": ARRAY[:0],
    "nan": ARRAY * math.nan,
    "infinite": ARRAY * math.inf,
}


@pytest.mark.parametrize("name", ODD_ARRAYS)
def test_odd_arrays_are_refused_with_their_name(name):
    with pytest.raises((TypeError, ValueError), match=r"^W must .*got") as caught:
        validate.tensor("W", ODD_ARRAYS[name])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "given",
    [
        ARRAY,
        np.asfortranarray(ARRAY),
        ARRAY.astype(">f8"),
        ARRAY[::-1, ::-1],
        TENSOR.mT,
        torch.nn.Parameter(TENSOR),
        ARRAY.astype(np.float32),
    ],
    ids=["array", "columns first", "big-endian", "reversed", "view", "parameter", "f32"],
)
def test_arrays_keep_their_values_and_precision(given):
    found = validate.tensor("W", given)
    expected = given.detach().numpy() if isinstance(given, torch.Tensor) else np.asarray(given)
    assert np.array_equal(found.detach().numpy(), expected)
    assert found.dtype is (torch.float32 if expected.dtype == np.float32 else torch.float64)


def test_memory_that_may_not_be_written_to_is_copied():
    fixed = ARRAY.copy()
    fixed.flags.writeable = False
    found = validate.tensor("W", fixed)
    found += 1
    assert np.array_equal(fixed, ARRAY)


@pytest.mark.parametrize("given", [ARRAY.copy(), TENSOR.clone()], ids=["array", "tensor"])
def test_an_owned_tensor_does_not_follow_the_callers(given):
    found = validate.tensor("W", given, owned=True)
    given *= 0
    assert np.array_equal(found.numpy(), ARRAY)


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (1, 1.0),
        (0.25, 0.25),
        (Fraction(1, 4), 0.25),
        (np.float32(0.5), 0.5),
        (np.int8(3), 3.0),
        (np.array(0.5), 0.5),
        (np.array(3), 3.0),
        (torch.tensor(0.5), 0.5),
        (torch.tensor(3), 3.0),
        (torch.tensor(0.5, requires_grad=True), 0.5),
    ],
    ids=repr,
)
def test_numbers_become_floats(given, value):
    found = validate.number("x", given)
    assert type(found) is float
    assert found == value


def kind_of(given):
    """An id that every process gives alike: addresses differ."""
    return type(given).__name__ if type(given) is object else repr(given)


@pytest.mark.parametrize(
    "given",
    [
        True, np.True_, np.array(True), torch.tensor(True), "1", b"1", 1j, np.complex128(1),
        torch.tensor(1j), None, [1.0], (1.0,), np.array([1.0]), torch.ones(1), {}, object(),
        np.ma.masked, np.ma.masked_array(1.0, mask=True), torch.tensor(1.0).to("meta"),
        np.datetime64("2020-01-01"), float("nan"), float("inf"), -float("inf"), -1, 10**400,
        np.float64("nan"),
    ],
    ids=kind_of,
)  # fmt: skip
def test_what_is_no_number_is_refused(given):
    with pytest.raises((TypeError, ValueError), match=r"^x must .*got"):
        validate.number("x", given)


@pytest.mark.parametrize(
    "given",
    [True, np.True_, 1.0, "1", None, np.array(1), 2**63, 10**5000, -1, 1j],
    ids=lambda g: type(g).__name__,
)
def test_what_is_no_count_is_refused(given):
    with pytest.raises((TypeError, ValueError), match=r"^n must .*got") as caught:
        validate.integer("n", given, least=0)
    assert len(str(caught.value)) < 200


def test_counts_pass():
    assert [validate.integer("n", n, least=0) for n in (0, np.int16(7), 2**63 - 1)] == [
        0, 7, 2**63 - 1,
    ]  # fmt: skip


@pytest.mark.parametrize("given", [0, 1, -0.1, 2, math.nan, True, "0.5", None])
def test_fractions_lie_between(given):
    with pytest.raises((TypeError, ValueError), match=r"^c must"):
        validate.fraction("c", given)


def test_fractions_pass():
    assert validate.fraction("c", np.float32(0.5)) == 0.5


@pytest.mark.parametrize("given", [1, None, ["gd"], np.array(["gd"]), b"gd", "gdd", ""])
def test_choices(given):
    with pytest.raises((TypeError, ValueError), match=r"^rule must be .*gd"):
        validate.choice("rule", given, ["gd", "adamw"])


def test_a_choice_among_none_says_so():
    with pytest.raises(ValueError, match="must be left out, for there is none; got 'beta'"):
        validate.choice("hyper-parameter of 'gd'", "beta", [])


@pytest.mark.parametrize("given", ["ab", 1, None, {1}, itertools.count(), np.ones((2, 2))])
def test_sequences(given):
    with pytest.raises(TypeError, match=r"^names must be a sequence"):
        validate.sequence("names", given)


def test_lists_of_numbers_are_floats():
    for given in ([1, 2], (1.0, 2.0), range(1, 3), np.array([1, 2]), torch.tensor([1.0, 2.0])):
        assert validate.numbers("x", given) == [1.0, 2.0]
    for odd in ([], [True], ["1"], np.ma.masked_array([1.0]), np.ones((2, 2)), np.array([])):
        with pytest.raises((TypeError, ValueError), match=r"^x must"):
            validate.numbers("x", odd)


@pytest.mark.parametrize("given", ["meta", "gpu", 1.5, None, "cpu:x", ["cpu"], "mps"])
def test_devices(given):
    with pytest.raises(ValueError, match=r"^device must be cpu or cuda"):
        validate.device(given)


@pytest.mark.parametrize(
    "given", ["float16", torch.float16, torch.int64, np.ones(2), None, float, "complex128", [1]]
)
def test_dtypes(given):
    with pytest.raises(TypeError, match=r"^dtype must be float32 or float64"):
        validate.dtype(given)


@pytest.mark.parametrize("given", [(3, 3), [0, 1, 0], torch.tensor([5, 5])])
def test_seeds_differ(given: Any) -> None:
    """The same trial twice would look like two."""
    with pytest.raises(ValueError, match=r"seeds must differ, .*more than once; give other seeds"):
        validate.seeds(given)
    assert validate.seeds(range(3)) == (0, 1, 2)

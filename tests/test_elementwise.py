"""The last bit of an entry does not depend on where in a tensor it stands."""

import numpy as np
import pytest
import torch
from tolerance import rounding

from loraone_theory.core import elementwise


@pytest.mark.parametrize("name", ["atan2", "hypot"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_entries_alone_and_among_others(name: str, dtype: torch.dtype) -> None:
    function = getattr(elementwise, name)
    generator = torch.Generator().manual_seed(0)
    y, x = torch.rand(2, 500, generator=generator, dtype=dtype)
    whole = function(y, x)
    alone = torch.stack([function(a, b) for a, b in zip(y, x, strict=True)])
    assert torch.equal(whole, alone)
    # Against the same function in float64 by numpy: half a unit and what the routine is off by.
    expected = torch.from_numpy(
        getattr(np, "arctan2" if name == "atan2" else name)(y.double().numpy(), x.double().numpy())
    )
    torch.testing.assert_close(whole.double(), expected, rtol=4 * torch.finfo(dtype).eps, atol=0)


def test_shapes_strides_and_gradients() -> None:
    y = torch.arange(1.0, 13.0, dtype=torch.float64).reshape(3, 4).mT
    x = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64).requires_grad_()
    found = elementwise.atan2(y, x)
    assert found.shape == (4, 3)
    torch.testing.assert_close(found, torch.atan2(y, x), rtol=rounding(4), atol=0)
    (given,) = torch.autograd.grad(found.sum(), x)
    expected = (-y / (y**2 + x.detach() ** 2)).sum(0)  # of four terms of one sign
    torch.testing.assert_close(given, expected, rtol=rounding(4, operations=4), atol=0)
    assert elementwise.hypot(torch.zeros(0), torch.zeros(0)).shape == (0,)

"""Peak memory of estimation, each in a process of its own."""

import pytest
from peft_nets import QUIET

from loraone_theory.integrations import peft_bench

pytestmark = [QUIET, pytest.mark.slow]

SHALLOW, DEEP = 4, 12


@pytest.mark.parametrize("width", [768, 1152])
def test_the_layerwise_route_grows_with_the_largest_layer(width: int) -> None:
    """Beyond the model: from 4 to 12 layers by the triplets and not by the gradients."""
    growth = {}
    for reduce in ("none", "svd"):
        call = f"ours(model, 2, reduce={reduce!r})"
        small, large = (peft_bench.peak_of(call, width, layers) for layers in (SHALLOW, DEEP))
        if small is None:
            pytest.skip("needs Linux's /proc")
        growth[reduce] = large - small
    more = DEEP - SHALLOW
    weights = more * (4 + 3 * 3) * width**2 * 4
    triplets = more * 2 * peft_bench.RANK * (4 * 2 + 3 * 4) * width * 4
    largest = 3 * width**2 * 4
    assert growth["svd"] <= triplets + largest
    assert growth["none"] >= 0.9 * weights

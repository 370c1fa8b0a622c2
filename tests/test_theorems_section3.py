"""What derivations 3.1 to 3.9 prove: each claim names its derivation, and what it rests on."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tolerance import printed, rounding

import loraone_theory as lt
from loraone_theory.claims import CLAIMS, Draws
from loraone_theory.claims.lora_one.linear import floors as p3_5
from loraone_theory.claims.lora_one.linear import local_rates as p3_7
from loraone_theory.claims.lora_one.linear import lora_pro as p3_9
from loraone_theory.claims.lora_one.linear import sample_size as p3_8
from loraone_theory.claims.lora_one.linear.base import slow_mode

NAMES = [name for name in CLAIMS if name.startswith("lora-one/linear/")]
DERIVATIONS = Path(__file__).resolve().parent.parent / "docs" / "derivations.md"


def sections():
    """Heading number -> text, for the level-2 headings of the derivations."""
    parts = re.split(r"^### (\d\.\d) ", DERIVATIONS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("number", [f"3.{i}" for i in range(1, 10)])
def test_derivations_and_claims_name_each_other(number):
    tested = re.findall(r"^Tested by: (.*)\.$", sections()[number], flags=re.MULTILINE)
    assert len(tested) == 1
    named = set(re.split(r"[,;] |used by ", tested[0].replace(" (on the unreduced dynamics)", "")))
    own = {name for name in NAMES if CLAIMS[name].derivation == number}
    assert own <= named
    assert own
    # Whoever else leans on the section is named by it, at least by the claim's main id.
    leaning = {claim.id for claim in CLAIMS.values() if claim.derivation == number} - own
    for name in leaning:
        assert any(name == main or name.startswith(f"{main}/") for main in named), name
    assert named - {""} <= set(CLAIMS)


def test_least_squares_of_the_optimum_is_that_of_numpy():
    g = torch.Generator().manual_seed(0)
    A, B, full = (torch.randn(*s, generator=g).double() for s in ((6, 2), (2, 5), (6, 5)))
    system = np.hstack([np.kron(A.numpy(), np.eye(5)), np.kron(np.eye(6), B.numpy().T)])
    x, *_ = np.linalg.lstsq(system, full.numpy().ravel(), rcond=None)
    expected = np.linalg.norm(system @ x - full.numpy().ravel())
    # Least squares of 30 equations: to the square of the condition number of the system.
    values = np.linalg.svd(system, compute_uv=False)
    kappa = values[0] / values[values > np.sqrt(np.finfo(float).eps) * values[0]][-1]
    once = rounding(30, operations=4, condition=kappa**2)
    assert float(p3_9._least_squares(A, B, full)) == pytest.approx(expected, rel=once)


def test_slow_modes_are_eigenvectors_of_the_linearised_step():
    """E ↦ Σ̂E BᵀB + AAᵀΣ̂E and its preconditioned form, applied to v wᵀ in full."""
    problem = p3_7._instances(Draws(2), 3.0)
    Sigma = problem.covariance.matrix
    for rule in ("gd", "preconditioned"):
        ends = lt.predict.tangent_extremes(problem, rule)
        for column, fastest in enumerate((False, True)):
            A, B, v, w = slow_mode(problem, rule, fastest)
            E = v @ w.mT
            P_A, P_B = A @ torch.linalg.pinv(A), torch.linalg.pinv(B) @ B
            right, left = (B.mT @ B, A @ A.mT) if rule == "gd" else (P_B, P_A)
            image = Sigma @ E @ right + left @ Sigma @ E
            # eig of a matrix with condition number below 30 in a basis no worse than Σ̂^{1/2}.
            wanted = ends[:, column, None, None] * E
            allowed = rounding(max(E.shape[-2:]), operations=10, condition=30.0**2)
            torch.testing.assert_close(image, wanted, rtol=0, atol=allowed)


def test_geometric_tails_are_exact_for_geometric_losses():
    """Half of twice the remaining fall of 1 + 0.5^j, j = 3, 4, 5, is 0.5^5."""
    losses = 1 + 0.5 ** torch.arange(3.0, 6.0, dtype=torch.float64)[:, None]
    assert float(p3_5._still_to_fall(losses)) / 2 == pytest.approx(
        0.5**5, rel=rounding(3, condition=2 / 0.5**5)
    )


def test_samples_needed_agree_with_the_edge():
    assert p3_8._needed(1.0) == pytest.approx(19.798, abs=printed(3))
    for kappa in (1.0, 3.0, 50.0):
        assert p3_8._edge(p3_8._needed(kappa)) == pytest.approx(
            1 / (2 * kappa), rel=rounding(4, condition=2 * kappa)
        )
    assert p3_8._needed(1e3) == pytest.approx(16e6 + 4e3, abs=8)


def test_the_offset_as_extra_rank_has_the_closed_form_of_its_blocks():
    """Σ̂ = I, 2r = r*: LoRA-GA's floor is ½Σσ₋² of [[λ_i, ζ²], [0, λ_{r+i}]], below LoRA-One's."""
    rank, spectrum = 2, np.array([1.0, 0.8, 0.5, 0.3])
    sampled = lt.sample_linear(d=12, k=9, true_rank=4, samples=12, spectrum=spectrum.tolist())
    problem = lt.LinearProblem.population(shift=sampled.shift)
    one = float(lt.predict.floor(problem, "lora-one", rank=rank))
    for gamma in (1.0, 16.0, 1e4):
        zeta2 = 9**0.5 / gamma
        smallest = []
        # A₀ and B₀ take U_i and V_{r+i} up to sign, which the singular values do not see.
        for i in range(rank):
            block = np.array([[spectrum[i], zeta2], [0.0, spectrum[rank + i]]])
            smallest.append(np.linalg.svd(block, compute_uv=False)[1])
        found = float(lt.predict.floor(problem, lt.methods.lora_ga(gamma=gamma), rank=rank))
        assert found == pytest.approx(
            0.5 * np.sum(np.square(smallest)),
            rel=rounding(100, operations=2, condition=max(1.0, zeta2) / min(smallest)),
        )
        assert found < one

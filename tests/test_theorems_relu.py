"""Claims on the ReLU model, and the pieces of their measurements that have an independent check."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tolerance import rounding

import loraone_theory as lt
from loraone_theory import experiment, storage
from loraone_theory.claims import Draws, Finding, judge
from loraone_theory.claims.lora_one import relu
from loraone_theory.claims.lora_one.paper import base as setting
from loraone_theory.claims.lora_one.paper import lemma_d2, lemma_d5, theorem_4_2
from loraone_theory.claims.lora_one.relu import closed_forms as r5_1
from loraone_theory.problems.relu import closed_forms as relu_math

FILES = (
    lemma_d2,
    lemma_d5,
    theorem_4_2,
    *relu.FILES,
)
CLAIMS = [claim for file in FILES for claim in file.CLAIMS]
T42 = "lora-one/theorem-4.2"


def test_every_claim_is_proved_where_it_says() -> None:
    """The section exists, and ends with a line that names the claim (T4.2's parts together)."""
    text = (Path(__file__).parent.parent / "docs" / "derivations.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### (5\.\d) .*?\n(.*?)(?=^#|\Z)", text, re.M | re.S))
    assert sorted(sections) == [f"5.{i}" for i in range(1, 9)]
    for claim in CLAIMS:
        last = sections[claim.derivation].strip().splitlines()[-1]
        assert last.startswith("Tested by: ")
        name = T42 if claim.id.startswith(T42) else claim.id
        assert name in re.split(r"[,;] |: |\.$| and ", last), claim.id


def test_the_angular_quadrature_finds_known_values() -> None:
    """At w̃ = −w': J = −½w', E(y − ŷ)² = ‖w'‖²; at w̃ = 0: J = −½w', ½‖w'‖²."""
    weight = np.arange(1.0, 1.0 + r5_1.D)
    square = weight @ weight
    for E, error in ((-2 * weight, square), (-weight, square / 2)):
        J, found = r5_1._quadrature(E, weight)
        # Sums over the nodes, each to a few units.
        np.testing.assert_allclose(J, -weight / 2, rtol=rounding(r5_1.D, operations=16))
        assert found == pytest.approx(error, rel=rounding(r5_1.D, operations=16))


def test_the_angular_quadrature_agrees_with_sampling() -> None:
    rng = np.random.default_rng(0)
    weight, E = rng.standard_normal((2, r5_1.D))
    x = rng.standard_normal((400_000, r5_1.D))
    own, target = x @ weight, x @ (weight + E)
    miss = np.maximum(target, 0) - np.maximum(own, 0)
    terms = x * (miss * (own > 0))[:, None]
    J, error = r5_1._quadrature(E, weight)
    z = (terms.mean(0) - J) / (terms.std(0) / math.sqrt(len(x)))
    assert np.abs(z).max() <= 4.5
    assert abs((miss**2).mean() - error) <= 4.5 * (miss**2).std() / math.sqrt(len(x))


def test_lemma_a_is_attained_at_small_orthogonal_shifts() -> None:
    """‖2J − E‖ π‖w'‖/‖E‖² tends to 1 from below as E ⊥ w' shrinks."""
    weight = torch.tensor([[2.0], [0.0], [0.0]], dtype=torch.float64)
    for size, least in ((0.2, 0.97), (0.02, 0.9997), (0.002, 0.999997)):
        E = torch.tensor([[0.0], [size], [0.0]], dtype=torch.float64)
        gap = (2 * relu_math.negative_gradient(E, weight) - E).norm()
        assert least <= float(gap * math.pi * 2 / size**2) <= 1


def test_a_run_is_judged_down_to_the_level_and_no_further() -> None:
    """The envelope is itself below the level at the last step, so no run is left undecided."""
    for claim in theorem_4_2.CLAIMS:
        if claim.expected is Finding.SUPPORTED:
            evidence = claim.measure(Draws(4, smoke=True))
            assert np.isfinite(evidence.lhs).all()
    assert (1 - 0.5 / 4) ** theorem_4_2.GENERIC.steps <= setting.LEVEL


def test_draws_that_start_too_far_off_are_no_support(monkeypatch: pytest.MonkeyPatch) -> None:
    """T4.2 counts the draws with ρ₀ ≤ 1/20 and no others, here of made-up runs."""
    rho = np.array([0.01, 0.05, 0.0501, 0.3])
    worst = np.array([0.5, 0.6, 7.0, 8.0])

    def runs(regime: object, seeds: object, strength: float) -> tuple[np.ndarray, ...]:
        return worst, rho, np.zeros(4), np.array([-1, -1, 3, 3])

    monkeypatch.setattr(setting, "_runs", runs)
    regime = [theorem_4_2.GENERIC]
    evidence = setting.within_bound(Draws(4), regime, start=setting.START)
    assert np.asarray(evidence.inside).tolist() == [True, True, False, False]
    assert judge(evidence, "probability").inside == 2
    everywhere = setting.within_bound(Draws(4), regime)
    assert np.asarray(everywhere.inside).tolist() == [True] * 4
    far = setting.within_bound(Draws(4), regime, start=0.001)
    assert judge(far, "probability").finding is Finding.OUTSIDE_HYPOTHESES


def test_the_sampling_noise_of_the_first_error_is_the_predicted_one() -> None:
    """ρ₀ at a vanishing shift is F·1.1·√(d/N), by the longhand one-step gradient.

    At k = d and r*/d = 0.105 the leading-order constant √(1 + r*/k + r*/d) is 1.1. Over 24 draws
    its mean is known to 4 % (four standard errors), and the next orders are r*²/(dk), 1.1 %, and
    d/N, 0.5 %: the factor 1.0 is 9 % away.
    """
    d, true_rank, ratio, count = 57, 6, 200, 24
    measured = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        U, V = (np.linalg.qr(rng.standard_normal((d, true_rank)))[0] for _ in range(2))
        W = np.linalg.qr(rng.standard_normal((d, d)))[0]
        shift = 1e-6 * U @ V.T
        X = rng.standard_normal((ratio * d, d))
        miss = np.maximum(X @ (W + shift), 0) - np.maximum(X @ W, 0)
        G = X.T @ (miss * (X @ W > 0)) / len(X)
        left, values, right = np.linalg.svd(2 * G)
        best = left[:, :true_rank] * values[:true_rank] @ right[:true_rank]
        measured.append(np.linalg.norm(best - shift) / 1e-6)
    measured = np.array(measured)
    predicted = lt.predict.relu.first_error(
        1e-6 * math.sqrt(true_rank), math.sqrt(true_rank), samples=ratio * d, d=d
    )
    known = 4 * measured.std() / math.sqrt(count) / measured.mean()
    assert measured.mean() == pytest.approx(predicted, rel=known + true_rank**2 / d**2 + 1 / ratio)
    assert known < 0.05


def test_the_map_separates_few_samples_from_many(tmp_path: Path) -> None:
    folder = Path(__file__).parent.parent / "experiments"
    script = experiment.load(folder / "fig_t42_map.py")
    experiment.produce(script, script.smoke, tmp_path)
    assert (tmp_path / "fig_t42_map.png").read_bytes().startswith(b"\x89PNG")
    data = storage.load_arrays(tmp_path / "fig_t42_map.npz")
    for name in ("kappa", "eta", "rank", "shift"):
        few, many = data[f"share.{name}"]
        assert (few == 0).all(), name
        assert (many == 1).all(), name
    # The same edge as in the claim: slower for Δ in one column, and slower for fewer samples.
    generic, column = data["rate.generic"].mean(-1), data["rate.column"].mean(-1)
    assert generic[0] > generic[1]
    assert not column[1] < generic[1]

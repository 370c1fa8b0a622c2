"""Whole answers of the judge, sentence and numbers, and what a claim says of itself, by hand."""

import math
from typing import Any

import numpy as np
import pytest

from loraone_theory.claims import Claim, Draws, Evidence, Finding, judge, stats
from loraone_theory.claims.base import Certificate, Paper
from loraone_theory.claims.judge import Judgement

NAN, INF = math.nan, math.inf
OF = {
    "proved": Certificate(True, "", "", boxes=4, depth=2),
    "refuted": Certificate(False, "x = 3", "x > 2", boxes=5, depth=3),
    "open": Certificate(False, "", "x > 2", boxes=6, depth=4),
}
# All numbers are exact in binary. Kind, lhs, the other parts, and what is answered.
ANSWERS: list[tuple[str, list[float], dict[str, Any], Judgement]] = [
    (
        "identity", [1.0, 2.5, 7.0],
        {"rhs": np.array([1.0, 2.0, 3.0]), "tolerance": [0.0, 0.25, 0.0], "inside": [1, 1, 0]},
        Judgement(
            Finding.VIOLATED, "1 of 2 draws exceed the promise, by up to 0.25", 3, 2, 0.25
        ),
    ),
    (
        "identity", [1.0, 1.5], {"rhs": 1.25, "tolerance": 0.25},
        Judgement(Finding.SUPPORTED, "holds on all 2 draws", 2, 2, 0.0),
    ),
    (
        "bound", [0.5, -4.0], {"rhs": 1.0, "tolerance": 0.125},
        Judgement(Finding.SUPPORTED, "holds on all 2 draws", 2, 2, -0.625),
    ),
    (
        "bound", [0.5, NAN, 3.0], {"rhs": 1.0},
        Judgement(Finding.VIOLATED, "2 of 3 draws exceed the promise, by up to inf", 3, 3, INF),
    ),
    (
        "bound", [0.5, 0.25], {"rhs": 1.0, "inside": False},
        Judgement(Finding.OUTSIDE_HYPOTHESES, "none of 2 draws meets the hypotheses", 2, 0, NAN),
    ),
    (
        "value", [2.0] * 9 + [9.0], {"rhs": 2.25, "tolerance": 0.5, "inside": [1] * 9 + [0]},
        Judgement(Finding.SUPPORTED, "2 in [2, 2] against 2.25 ± 0.5 promised", 10, 9, -0.25),
    ),
    (
        "value", [2.0] * 4, {"rhs": 2.25, "tolerance": 0.25},
        Judgement(Finding.SUPPORTED, "2 in [2, 2] against 2.25 ± 0.25 promised", 4, 4, 0.0),
    ),
    (
        "value", [2.0] * 4, {"rhs": 1.0, "tolerance": np.array([0.5, 0.25, 0.5, 0.5])},
        Judgement(Finding.VIOLATED, "2 in [2, 2] against 1 ± 0.25 promised", 4, 4, 0.75),
    ),
    (
        "value", [2.0, INF, NAN, 2.0], {"rhs": 2.0, "tolerance": 1.0},
        Judgement(Finding.VIOLATED, "2 of 4 draws could not be measured", 4, 4, INF),
    ),
    (
        "value", [2.0, 2.0], {"rhs": 2.0, "tolerance": 1.0},
        Judgement(Finding.INCONCLUSIVE, "2 draws; at least 3", 2, 2, NAN),
    ),
    (
        "certificate", [0.0, 0.0], {"rhs": 0.0, "certificate": OF["proved"]},
        Judgement(
            Finding.CERTIFIED,
            "proved on the whole domain, by 4 boxes, the smallest halved 2 times", 1, 1, 0.0,
        ),
    ),
    (
        "certificate", [0.0, 0.0], {"rhs": 0.0, "certificate": OF["refuted"]},
        Judgement(Finding.VIOLATED, "refuted: x = 3", 1, 1, 1.0),
    ),
    (
        "certificate", [0.0, 0.0], {"rhs": 0.0, "certificate": OF["open"]},
        Judgement(
            Finding.INCONCLUSIVE,
            "x > 2 is left open after 6 boxes, the smallest halved 4 times", 1, 1, 1.0,
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", ANSWERS, ids=lambda row: f"{row[0]}-{row[3].finding.value}")
def test_the_judge_answers(row: tuple[str, list[float], dict[str, Any], Judgement]) -> None:
    kind, lhs, parts, expected = row
    given: Any = kind
    found = judge(Evidence(np.array(lhs), **parts), given)
    np.testing.assert_equal(vars(found), vars(expected))


def test_of_a_probability_the_counts_and_the_bound_are_told() -> None:
    """7 of 9 draws inside are at most 1.25; one outside is none."""
    lhs = np.array([0.0] * 6 + [1.25, 2.0, NAN, 0.0])
    inside = np.array([True] * 9 + [False])
    bounds = stats.probability_sequence(7, 9, 0.9)

    def asked(promised: float) -> Judgement:
        evidence = Evidence(lhs, 1.0, inside, tolerance=0.25, probability=promised)
        return judge(evidence, "probability", 0.9)

    low, high = f"{bounds.low:.4f}", f"{bounds.high:.4f}"
    for promised, finding, text in [
        (bounds.low, Finding.SUPPORTED, f"probability >= {low}"),
        (np.nextafter(bounds.low, 1), Finding.INCONCLUSIVE, f"probability in [{low}, {high}]"),
        (bounds.high, Finding.INCONCLUSIVE, f"probability in [{low}, {high}]"),
        (np.nextafter(bounds.high, 1), Finding.VIOLATED, f"probability <= {high}"),
    ]:
        reason = f"7 of 9 succeed: {text} against {promised:.4g} promised"
        assert asked(float(promised)) == Judgement(finding, reason, 10, 9, INF)
    # All at or below: the worst is told, not how often.
    kept = Evidence(np.array([0.5, 0.75]), 1.0, probability=0.01)
    assert judge(kept, "probability").worst == -0.25


def test_verdicts_are_at_a_confidence_of_99_percent_by_default() -> None:
    evidence = Evidence(np.zeros(40), 1.0, probability=0.8)
    reason = judge(evidence, "probability").reason
    assert f">= {stats.probability_sequence(40, 40, 0.99).low:.4f}" in reason
    assert stats.draws_needed(0.9) == stats.draws_needed(0.9, 0.99)


@pytest.mark.parametrize("successes", [0, 1, 30, 59, 60])
def test_a_probability_between_its_bounds(successes: int) -> None:
    found = stats.probability_sequence(successes, 60, 0.9)
    assert found.estimate == successes / 60
    assert 0.0 <= found.low <= found.estimate <= found.high <= 1.0
    assert (found.low == 0.0) is (successes == 0)
    assert (found.high == 1.0) is (successes == 60)


def test_decay_rates_take_four_values() -> None:
    """0.5^t between 0.01 and 1, both left out: t = 1 to 6; then three of them."""
    series = 0.5 ** np.arange(9.0)
    for low, count in ((0.01, 6), (0.5**5, 4), (0.5**4, 3)):
        inside = [value for value in series if low < value < 1.0]
        assert len(inside) == count
        found = stats.decay_rate(series[:, None], low=low, high=1.0)
        if count >= 4:
            # Sums over six logarithms of size 4.
            np.testing.assert_allclose(found, 0.5, rtol=4 * 6 * 8 * np.finfo(float).eps)
        else:
            assert np.isnan(found).all()


def test_series_that_stop_being_numbers_decay_until_then() -> None:
    series = 0.5 ** np.arange(9.0)
    series[6:] = [math.nan, math.inf, -math.inf]
    found = stats.decay_rate(series[:, None], low=0.01, high=2.0)
    # Sums over six logarithms of size 4.
    np.testing.assert_allclose(found, 0.5, rtol=4 * 6 * 8 * np.finfo(float).eps)


def test_statistics_take_whole_numbers_and_refuse_what_is_none() -> None:
    values = np.array([1, 2, 4, 5])
    assert stats.mean_sequence(values, 0.9) == stats.mean_sequence(values.astype(float), 0.9)
    assert stats.mean_sequence(values.tolist(), 0.9).estimate == 3.0  # type: ignore[arg-type]
    points, columns = np.arange(4), np.stack([2 * values, -values], axis=1)
    slope = (-1.5 * 1 - 0.5 * 2 + 0.5 * 4 + 1.5 * 5) / 5
    found = stats.slopes(points, columns)
    np.testing.assert_allclose(found, [2 * slope, -slope], rtol=16 * np.finfo(float).eps)
    for bad in (math.nan, math.inf):
        odd = np.array([1.0, bad, 2.0, 3.0])
        for call in (
            lambda odd=odd: stats.mean_sequence(odd, 0.9),
            lambda odd=odd: stats.slopes(odd, columns),
            lambda odd=odd: stats.slopes(points, odd[:, None]),
        ):
            with pytest.raises(ValueError, match="finite"):
                call()
        assert np.isnan(stats.slopes(points, odd[:, None], finite=False)).all()
    with pytest.raises(ValueError, match="slopes take x"):
        stats.slopes(points, values)
    with pytest.raises(ValueError, match="slopes take x"):
        stats.slopes(columns, columns)


def test_a_mean_is_bounded_under_a_prior_of_ten_standard_deviations() -> None:
    """[(1 + x)/(1 + x/(1+gn))]^{n/2}/√(1+gn) = 1/(1 − c) at the bound, g = 10², x = t²/(n − 1)."""
    values, confidence = np.array([1.0, 2.0, 4.0, 5.0, 8.0, 4.0]), 0.9
    found, n = stats.mean_sequence(values, confidence), 6
    assert found.estimate == 4.0
    s = math.sqrt(sum((v - 4.0) ** 2 for v in values) / (n - 1))
    for end in (found.low, found.high):
        x = ((end - 4.0) / (s / math.sqrt(n))) ** 2 / (n - 1)
        factor = ((1 + x) / (1 + x / (1 + 100 * n))) ** (n / 2) / math.sqrt(1 + 100 * n)
        # A few operations, raised to n/2; the interval's end is its centre and 2.4 times as much.
        assert factor == pytest.approx(10.0, rel=64 * n * np.finfo(float).eps)


# --- several settings together


def test_a_setting_that_fails_is_not_outvoted_by_those_that_hold() -> None:
    """10 of 30 fail in one of three, 10 of 4030 together: above 0.99 together, not in that one."""
    sizes, confidence = (2000, 30, 2000), 0.99
    lhs = np.concatenate([np.zeros(2000), np.repeat([0.0, 2.0], (20, 10)), np.zeros(2000)])
    setting = np.repeat(["a", "b", "c"], sizes)
    together = judge(Evidence(lhs, 1.0, probability=0.99), "probability", confidence)
    assert together.finding is Finding.SUPPORTED
    apart = judge(Evidence(lhs, 1.0, probability=0.99, setting=setting), "probability", confidence)
    high = stats.probability_sequence(20, 30, 1 - 0.01 / 6).high
    found = f"4020 of 4030 succeed: in one setting 20 of 30, probability <= {high:.4f}"
    assert apart.reason == f"{found} against 0.99 promised, over 3 settings of 30 to 2000 draws"
    assert apart.finding is Finding.VIOLATED
    # What is outside the hypotheses refutes nothing.
    held = Evidence(lhs, 1.0, lhs < 1.0, probability=0.99, setting=setting)
    assert judge(held, "probability", confidence).finding is Finding.SUPPORTED


def test_values_that_are_off_to_both_sides_are_not_right_in_the_mean() -> None:
    rng = np.random.default_rng(5)
    noise, setting = 0.01 * rng.standard_normal(80), np.repeat([0, 1], 40)
    lhs = 1.0 + noise + np.where(setting, 0.2, -0.2)
    assert judge(Evidence(lhs, 1.0, tolerance=0.15), "value").finding is Finding.SUPPORTED
    apart = judge(Evidence(lhs, 1.0, tolerance=0.15, setting=setting), "value")
    assert apart.finding is Finding.VIOLATED
    assert "in one setting" in apart.reason
    assert apart.worst > 0
    within = Evidence(lhs, 1.0, tolerance=0.25, setting=setting)
    assert judge(within, "value").finding is Finding.SUPPORTED
    # Each setting is held to its own allowance.
    own = Evidence(lhs, 1.0, tolerance=np.where(setting, 0.25, 0.15), setting=setting)
    assert judge(own, "value").finding is Finding.VIOLATED


@pytest.mark.parametrize("kind", ["probability", "value"])
def test_settings_take_no_more_than_the_level(kind: Any) -> None:
    """At the edge of the promise at most 1 − c are refuted, by all draws or by those of one."""
    rng, confidence, repetitions, settings, of = np.random.default_rng(2), 0.8, 1000, 8, 25
    setting, wrong = np.repeat(np.arange(settings), of), 0
    for _ in range(repetitions):
        if kind == "probability":
            lhs = np.where(rng.random(settings * of) < 0.9, 0.0, 2.0)
            evidence = Evidence(lhs, 1.0, probability=0.9, setting=setting)
        else:
            lhs = 0.5 + rng.standard_normal(settings * of)
            evidence = Evidence(lhs, 0.0, tolerance=0.5, setting=setting)
        wrong += judge(evidence, kind, confidence).finding is Finding.VIOLATED
    # Four standard errors of a share.
    level = 1 - confidence
    assert wrong / repetitions <= level + 4 * math.sqrt(level * confidence / repetitions)


@pytest.mark.parametrize("kind", ["probability", "value"])
def test_one_setting_is_judged_as_none(kind: Any) -> None:
    lhs = np.array([0.0, 1.0, 0.5, 0.25] * 9)
    plain = Evidence(lhs, 0.5, tolerance=0.1, probability=0.4)
    one = Evidence(lhs, 0.5, tolerance=0.1, probability=0.4, setting=np.zeros(36))
    assert judge(one, kind) == judge(plain, kind)
    with pytest.raises(ValueError, match="setting must be one per draw"):
        judge(Evidence(lhs, 0.5, probability=0.4, setting=np.zeros(3)), kind)


def test_all_settings_together_refute_what_none_does_alone() -> None:
    """Three failures of four in each of ten settings."""
    lhs, setting = np.tile([2.0, 2.0, 2.0, 0.0], 10), np.repeat(np.arange(10), 4)
    found = judge(Evidence(lhs, 1.0, probability=0.9, setting=setting), "probability")
    high = stats.probability_sequence(10, 40, 1 - 0.01 / 2).high
    assert found.finding is Finding.VIOLATED
    assert found.reason == (
        f"10 of 40 succeed: probability <= {high:.4f} against 0.9 promised, over 10 settings of "
        "4 draws each"
    )


# --- what a claim says of itself


def claim(**changed: Any) -> Claim:
    def measure(draws: Draws) -> Evidence:
        return Evidence(np.zeros(draws.trials), 1.0)

    given: dict[str, Any] = {
        "id": "made/up/claim", "title": "-", "reference": "-", "statement": "-",
        "hypotheses": ("-",), "how": "-", "kind": "bound", "measure": measure,
        "mutant_statement": "-", "mutant": measure, "trials": 10, "smoke_trials": 3,
    }  # fmt: skip
    return Claim(**given | changed)


@pytest.mark.parametrize(
    ("cap", "rounds"),
    [(None, (10, 20, 40, 80, 160, 320)), (40, (10, 20, 40)), (39, (10, 20)), (1, (10,))],
)
def test_the_judge_looks_after_twice_as_many_draws(
    cap: int | None, rounds: tuple[int, ...]
) -> None:
    assert claim(cap=cap).rounds(smoke=False) == rounds
    assert claim(cap=cap).rounds(smoke=True) == (3,)


def test_where_a_claim_can_be_judged() -> None:
    plain = claim()
    assert plain.missing == ""
    assert plain.unfit("float64", "cpu") == ""
    assert plain.unfit("float32", "cpu") == "it is stated in float64 alone, not in float32"
    assert plain.unfit("float64", "cuda:1") == "it is computed on the cpu alone, not on cuda:1"
    wide = claim(dtypes=("float32", "float64"), devices=("cpu", "cuda"))
    for dtype in ("float32", "float64"):
        assert wide.unfit(dtype, "cuda:1") == ""
    assert (plain.long, plain.paper) == (False, "made")


def test_where_draws_are_made_and_to_what_precision() -> None:
    draws = Draws(3)
    assert draws.place == {"dtype": "float64", "device": "cpu"}
    assert (draws.seed, draws.smoke, draws.first) == (0, False, 0)
    assert draws.eps == 2.0**-52
    assert Draws(3, dtype="float32").eps == 2.0**-23
    more = Draws(5, first=2).seeds(3)
    assert more == Draws(5).seeds()[2:]
    # Of several calls for a block the longest answer is kept.
    assert len(draws.seeds()) == 3
    draws.seeds(5)
    draws.seeds(2)
    assert draws.handed[0] == Draws(5).seeds()
    # What was handed out is no part of which draws they are.
    assert draws == Draws(3)
    assert "handed" not in repr(draws)


def test_headings_of_claims() -> None:
    paper = Paper("made", "-", "-", files=(), sections={"up": "Made up"})
    assert paper.section("made/up/claim") == "Made up"
    assert paper.section("made/theorem") == ""
    assert paper.claims == ()

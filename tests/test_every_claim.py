"""Every claim at its smallest size: its verdict, its mutant's, and that both are of the seed alone.

What was measured is kept while the tests of one claim run, so that it is measured once for all.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

import loraone_theory as lt
from loraone_theory.claims import CLAIMS, Claim, Draws, Evidence, Finding, judge, stats
from loraone_theory.claims.sweep import POWER
from loraone_theory.claims.verdict import load
from loraone_theory.testing import check_claim
from loraone_theory.testing.claims import LEVEL

RECORDS = Path(__file__).resolve().parent.parent / "records" / "verdicts.json"
JUDGED = [name for name, claim in CLAIMS.items() if not claim.long]
# Proved of every draw, whose few draws decide; what they report is one row of a table.
PROVED, MOST_NUMBERS = "lora-one/linear/", 12
# No master seed may turn these over, however few the draws.
ALWAYS = [name for name in JUDGED if CLAIMS[name].kind in ("identity", "bound")]
QUICK = {record["id"] for record in load(RECORDS) if record["seconds"] < 2} & set(ALWAYS)


class Kept:
    """A measurement that is made once for the same draws."""

    def __init__(self, measure: Callable[[Draws], Evidence]) -> None:
        self.measure = measure
        self.made: dict[tuple[int, int, str], Evidence] = {}

    def __call__(self, draws: Draws) -> Evidence:
        key = draws.trials, draws.seed, draws.dtype
        if key not in self.made:
            self.made[key] = self.measure(draws)
        return self.made[key]

    def then_again(self) -> Callable[[Draws], Evidence]:
        """What is kept where it is asked for first, and a new measurement from then on."""
        asked: Counter[tuple[int, int, str]] = Counter()

        def measure(draws: Draws) -> Evidence:
            key = draws.trials, draws.seed, draws.dtype
            asked[key] += 1
            return self(draws) if asked[key] == 1 else self.measure(draws)

        return measure


def able(name: str) -> Claim:
    """The claim, or a skip with the reason why it cannot be judged here."""
    if missing := CLAIMS[name].missing:
        pytest.skip(missing)
    return CLAIMS[name]


@pytest.fixture(scope="module", params=JUDGED)
def kept(request: pytest.FixtureRequest) -> Claim:
    """A claim that is measured once for the tests that ask for it."""
    claim = able(request.param)
    return dataclasses.replace(claim, measure=Kept(claim.measure), mutant=Kept(claim.mutant))


def test_small_draws_do_not_contradict(kept: Claim) -> None:
    """All of the contract but that a second measurement gives the same."""
    check_claim(kept)
    if kept.id.startswith(PROVED):
        verdict = lt.verify(kept, smoke=True)
        assert verdict.inside == verdict.trials
        assert all(np.isfinite(list(verdict.numbers.values())))
        assert len(verdict.numbers) <= MOST_NUMBERS


def test_a_smoke_run_finds_its_mutant_out(kept: Claim) -> None:
    """With the draws that it has; and not by luck, where they are counted.

    Of as many draws again, each a success as often as these make likely (a beta distribution, from
    Jeffreys' prior), the judge refutes the promise nearly always.
    """
    verdict = lt.verify(kept, smoke=True)
    assert verdict.mutant is Finding.VIOLATED, verdict.mutant_reason
    if kept.kind == "probability":
        evidence = kept.mutant(Draws(kept.smoke_trials, smoke=True))
        inside = np.broadcast_to(evidence.inside, evidence.lhs.shape)
        slack = np.broadcast_to(evidence.rhs + np.asarray(evidence.tolerance), inside.shape)
        successes, n = int((evidence.lhs <= slack)[inside].sum()), int(inside.sum())
        assert evidence.probability is not None
        level = LEVEL if evidence.setting is None else 1 - (1 - LEVEL) / 2
        refuted = [
            stats.probability_sequence(count, n, level).high < evidence.probability
            for count in range(n + 1)
        ]
        law = scipy.stats.betabinom(n, successes + 0.5, n - successes + 0.5)
        assert law.cdf(sum(refuted) - 1) >= POWER, f"{successes} of {n} succeed"


def test_draws_of_several_settings_say_which(kept: Claim) -> None:
    """Where there are more draws than were asked for, which else count as of one."""
    if kept.kind not in ("probability", "value"):
        return
    evidence = kept.measure(Draws(kept.smoke_trials, smoke=True))
    if evidence.lhs.size > kept.smoke_trials:
        assert evidence.setting is not None
        assert len(np.unique(evidence.setting)) > 1


@pytest.mark.slow
def test_measured_again_it_gives_the_same(kept: Claim) -> None:
    """Whatever the global random states."""
    measure, mutant = kept.measure.then_again(), kept.mutant.then_again()
    check_claim(dataclasses.replace(kept, measure=measure, mutant=mutant))


def flipped(name: str, seeds: range) -> dict[int, Finding]:
    """Master seed -> what came out in place of what is expected.

    What holds on every draw is seen on a quarter of them; a violation may need them all, and so may
    a claim whose hypotheses few draws meet.
    """
    claim = able(name)
    violated = claim.expected is Finding.VIOLATED
    few = claim.smoke_trials if violated else max(2, claim.smoke_trials // 4)

    def finding(trials: int, seed: int) -> Finding:
        return judge(claim.measure(Draws(trials, seed, smoke=True)), claim.kind).finding

    found = {seed: finding(few, seed) for seed in seeds}
    for seed in [seed for seed in found if found[seed] is Finding.OUTSIDE_HYPOTHESES]:
        found[seed] = finding(claim.smoke_trials, seed)
    return {seed: finding for seed, finding in found.items() if finding is not claim.expected}


@pytest.mark.parametrize("name", ALWAYS)
def test_another_master_seed_does_not_flip_an_identity_or_a_bound(name: str) -> None:
    assert flipped(name, range(1, 3)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(QUICK))
def test_no_master_seed_flips_an_identity_or_a_bound(name: str) -> None:
    """As far as records/seeds.md goes, for those that take no time."""
    assert flipped(name, range(3, 20)) == {}

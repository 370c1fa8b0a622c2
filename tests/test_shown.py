"""Every public object prints as a line or so, whatever it holds."""

from xml.etree import ElementTree

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

import loraone_theory as lt
from loraone_theory.problems.linear import covariance

LONGEST = 250
PROBLEM = lt.sample_linear(d=30, k=20, true_rank=3, samples=300, seeds=(0, 1))
RUN = lt.simulate(PROBLEM, "lora-one", rank=3, learning_rate=0.3, steps=5)


@pytest.mark.parametrize("name", lt.METHODS)
def test_methods_and_their_rules(name):
    method = lt.METHODS[name]().at(3)
    for shown in (repr(method), repr(method.rule(0.1, 0.0))):
        assert len(shown) <= LONGEST
        assert " at 0x" not in shown
    assert repr(name) in repr(method)


TUNED = lt.tune_step(PROBLEM, "lora", rank=2, steps=3, grid=(0.1, 0.2))
CLAIM = "lora-one/linear/one-step"
THINGS = {
    "problem": PROBLEM,
    "relu": lt.sample_relu(d=30, k=20, true_rank=3, samples=90, relative_shift=0.1),
    "run": RUN,
    "final": RUN.final,
    "status": RUN.status[0],
    "shift": PROBLEM.shift,
    "covariance": PROBLEM.covariance,
    "rows": covariance.Rows(torch.ones(5, 30)),
    "svd": lt.SVDOptions(),
    "schedule": lt.schedules.cosine(0.5, steps=9),
    "until": lt.Until("loss", 1e-3),
    "start": lt.methods.lora_ga().init(PROBLEM, 3, (0, 1)),
    "tuned": TUNED,
    "reduction": lt.reduce(PROBLEM, RUN.initial),
    "record": lt.RECORDS["left_angles"],
    "method": lt.methods.adalora(),
    "summary": lt.predict.summary(PROBLEM, "lora", 3),
    "contraction": lt.predict.contraction(PROBLEM, "lora", rank=3),
    "outlook": lt.predict.outlook(PROBLEM, "lora-adamw", rank=3),
    "claim": lt.claims.CLAIMS[CLAIM],
    "verdict": lt.verify(CLAIM, smoke=True),
}
# What a notebook shows as a table; the others are words.
TABLES = (
    "problem", "relu", "run", "covariance", "rows", "tuned", "reduction", "record", "method",
    "summary", "contraction", "outlook", "claim", "verdict",
)  # fmt: skip


@pytest.mark.parametrize("name", THINGS)
def test_objects(name):
    shown = repr(THINGS[name])
    assert len(shown) <= (LONGEST if name not in ("summary", "outlook") else 2 * LONGEST)
    assert "tensor(" not in shown
    assert " at 0x" not in shown


@pytest.mark.parametrize("name", TABLES)
def test_notebooks_show_tables(name):
    page = ElementTree.fromstring(THINGS[name]._repr_html_())
    rows = [[cell.text or "" for cell in row] for row in page.iter("tr")]
    assert rows
    assert all(len(row) == 2 for row in rows)
    assert not any("tensor(" in value or " at 0x" in value for _, value in rows)
    assert all(len(value) <= 2 * LONGEST or name in ("claim", "method") for _, value in rows)


def test_what_is_named_by_the_user_is_text_in_a_table():
    mine = lt.Record("<b>&", lambda view: view.loss)
    given = {"rank": 2, "learning_rate": 0.1, "steps": 1}
    run = lt.simulate(PROBLEM, "lora", record=[mine], **given)
    for shown in (run, mine):
        page = ElementTree.fromstring(shown._repr_html_())
        assert "<b>&" in {cell.text for row in page.iter("tr") for cell in row}


def test_registries_print_in_a_line_or_so():
    text = repr(lt.claims.CLAIMS)
    assert text.startswith(f"Registry({len(lt.claims.CLAIMS)} claims of lora-one, ")
    assert len(text) <= 4 * LONGEST


def test_what_holds_functions_tells_their_names():
    """Without the address at which one happens to be, so that it prints the same every time."""

    def half(M):
        return M.flatten() / 2

    operator = lt.operators.Given(
        half, lambda y: y.reshape(3, 2) / 2, d=3, k=2, measurements=6, like=torch.ones(1)
    )
    expected = "Given(measure=half, adjoint_of=<lambda>, d=3, k=2, measurements=6, like=[1])"
    assert repr(operator) == expected
    rows = np.arange(24.0).reshape(6, 4)
    linear = scipy.sparse.linalg.aslinearoperator(rows)
    assert " at 0x" not in repr(lt.operators.Given.from_scipy(linear, d=2, k=2))


def test_factors_and_covariances_tell_their_shapes():
    assert repr(RUN.final) == "Factors(A=(2, 30, 3), B=(2, 3, 20), float64)"
    assert "(2, 30, 30)" in repr(PROBLEM.covariance)

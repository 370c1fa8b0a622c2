"""Claims in float32 and on a second device: `verify(dtype=, device=)` and the command's options."""

from pathlib import Path

import pytest
import torch
from second_device import SecondDevice

import loraone_theory as lt
from loraone_theory.claims import CLAIMS, Draws
from loraone_theory.claims.choice import chosen
from loraone_theory.cli import main
from loraone_theory.dynamics import capture

SINGLE = [claim.id for claim in CLAIMS.values() if "float32" in claim.dtypes]
ELSEWHERE = [claim.id for claim in CLAIMS.values() if "cuda" in claim.devices]
COST = "lora-one/relu/gradient-cost"
OTHER = "lora-one/theorem-3.1"


@pytest.mark.parametrize("name", SINGLE)
def test_claims_that_say_so_come_out_in_float32(name: str) -> None:
    found = lt.verify(name, smoke=True, dtype="float32")
    assert found.as_expected, found.reason
    assert found.made["dtype"] == "float32"


@pytest.mark.parametrize("name", ELSEWHERE)
def test_claims_that_say_so_are_computed_on_the_device(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The answer is copied back from there, and is that of the CPU."""
    monkeypatch.delitem(capture.RECORDERS, "cuda")
    claim = CLAIMS[name]
    with SecondDevice() as place:
        evidence = claim.measure(Draws(2, smoke=True, device="cuda"))
        assert place.reads.count("a copy to the CPU") > 0
    here = claim.measure(Draws(2, smoke=True))
    assert evidence.lhs == pytest.approx(here.lhs, rel=1e3 * Draws(1).eps, abs=1e3 * Draws(1).eps)


def test_a_verdict_says_where_it_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(capture.RECORDERS, "cuda")
    with SecondDevice():
        found = lt.verify(COST, smoke=True, device="cuda")
    assert found.as_expected, found.reason
    assert found.made["device"] == "cuda"
    assert "device" not in lt.verify(COST, smoke=True).made


def test_tolerances_are_those_of_the_dtype() -> None:
    double, single = (CLAIMS[COST].measure(Draws(2, dtype=d)) for d in ("float64", "float32"))
    ratio = torch.finfo(torch.float32).eps / torch.finfo(torch.float64).eps
    assert single.tolerance / double.tolerance == pytest.approx(ratio, rel=0.1)
    # The gap is that of computing in single precision: beyond double rounding, within single.
    assert (double.tolerance < single.lhs).all()
    assert (single.lhs <= single.tolerance).all()


def test_a_mutant_is_found_out_in_float32() -> None:
    """The broken claim is off by more than the wider tolerance."""
    evidence = CLAIMS[COST].mutant(Draws(2, dtype="float32"))
    assert (evidence.lhs > evidence.tolerance).all()


def test_other_claims_are_refused_by_name_and_left_out_otherwise() -> None:
    with pytest.raises(ValueError, match="stated in float64 alone, not in float32; leave"):
        lt.verify(OTHER, smoke=True, dtype="float32")
    assert chosen([OTHER, COST], dtype="float32") == [COST]
    with pytest.raises(ValueError, match="no claim of these is judged in float32 on cpu"):
        chosen([OTHER], dtype="float32")
    assert set(chosen(dtype="float32")) < set(chosen())
    assert chosen(dtype="float64", device="cpu") == chosen()
    with SecondDevice(), pytest.raises(ValueError, match="computed on the cpu alone, not on cuda"):
        lt.verify(OTHER, smoke=True, device="cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_machine_without_cuda_says_so_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="this machine has no CUDA; use cpu"):
        lt.verify(COST, smoke=True, device="cuda")
    assert main(["verify", COST, "--smoke", "--device", "cuda"]) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    assert "this machine has no CUDA" in said.err


def test_the_command_lists_what_it_skips_and_why(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", COST, OTHER, "--smoke", "--dtype", "float32"]) == 0
    said = " ".join(capfd.readouterr().out.split())
    assert f"skipped: {OTHER}: it is stated in float64 alone, not in float32" in said


@pytest.mark.parametrize("option", ["json", "draws"])
def test_files_are_of_the_usual_place_alone(tmp_path: Path, option: str) -> None:
    where = {option: tmp_path / ("v.json" if option == "json" else "draws")}
    with pytest.raises(ValueError, match=f"{option} holds what claims give in float64 on the cpu"):
        lt.verify_all([COST], smoke=True, dtype="float32", **where)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dtype": "half"}, "dtype must be one of float64, float32"),
        ({"dtype": 3}, "dtype must be a string"),
        ({"device": "gpu"}, "device must be cpu or cuda"),
    ],
    ids=["half", "three", "gpu"],
)
def test_other_places_are_refused(given: dict, message: str) -> None:
    for call in (
        lambda: lt.verify(COST, smoke=True, **given),
        lambda: lt.verify_all([COST], **given),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call()

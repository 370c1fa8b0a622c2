"""A few of a verdict's draws, as they are kept in the repository."""

import numpy as np
import pytest

import loraone_theory as lt
from loraone_theory import shipped, storage
from loraone_theory.claims import sampled, values

STEP = "lora-one/linear/one-step"


def arrays(count, mutants=3):
    """Draws whose lhs is their number."""
    found = {}
    for prefix, n in (("", count), ("mutant_", mutants)):
        found[f"{prefix}lhs"] = np.arange(float(n))
        found[f"{prefix}rhs"] = np.full(n, 0.5)
        found[f"{prefix}tolerance"] = np.full(n, 0.25)
        found[f"{prefix}inside"] = np.arange(n) % 3 > 0
    return found


def kept(folder, whole, worst):
    sampled.save(folder, "a/b", whole, worst)
    return sampled.load(folder, {"id": "a/b", "values": values.digest(whole)})


@pytest.mark.parametrize("worst", [None, 0, 1234, 4999])
def test_of_many_draws_some_are_kept_and_the_worst_always(tmp_path, worst):
    side = kept(tmp_path, arrays(5000), worst).claim
    assert side.of == 5000
    assert len(side.lhs) <= sampled.MOST
    assert {0.0, 4999.0} <= set(side.lhs)
    assert worst is None or worst in side.lhs
    assert np.diff(side.lhs).max() <= np.ceil(5000 / (sampled.MOST - 2))
    np.testing.assert_array_equal(side.inside, side.lhs % 3 > 0)
    # Of all draws inside, not of those that were kept.
    assert side.mean == np.mean([n for n in range(5000) if n % 3])


def test_of_few_draws_all_are_kept(tmp_path):
    found = kept(tmp_path, arrays(sampled.MOST), 7)
    np.testing.assert_array_equal(found.claim.lhs, np.arange(sampled.MOST))
    np.testing.assert_array_equal(found.mutant.lhs, [0.0, 1.0, 2.0])
    np.testing.assert_array_equal(found.mutant.rhs, 0.5)
    np.testing.assert_array_equal(found.mutant.tolerance, 0.25)
    assert (found.claim.of, found.mutant.of) == (sampled.MOST, 3)


def test_what_float32_does_not_hold_is_infinite(tmp_path):
    whole = arrays(3)
    whole["lhs"] = np.array([1e300, np.nan, 0.0])
    np.testing.assert_array_equal(kept(tmp_path, whole, None).claim.lhs, [np.inf, np.nan, 0.0])


def test_draws_of_another_verdict_count_as_none(tmp_path):
    whole = arrays(5)
    sampled.save(tmp_path, "a/b", whole, None)
    record = {"id": "a/b", "values": values.digest(whole)}
    assert sampled.load(tmp_path, record) is not None
    assert sampled.load(tmp_path, {**record, "values": "0" * 64}) is None
    assert sampled.load(tmp_path, {"id": "a/b"}) is None
    assert sampled.load(tmp_path, {**record, "id": "a/c"}) is None


def test_a_damaged_file_is_named(tmp_path):
    path = values.where(tmp_path / sampled.FOLDER, "a/b")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no archive")
    with pytest.raises(storage.DamagedFile, match=r"b\.npz"):
        sampled.load(tmp_path, {"id": "a/b", "values": "0" * 64})


def test_a_verdict_writes_them_and_says_when_it_was_made(tmp_path):
    record = lt.verify(STEP, smoke=True, draws=tmp_path).to_record()
    found = sampled.load(tmp_path, record)
    assert found.claim.of == record["trials"]
    np.testing.assert_array_equal(
        found.claim.lhs, values.load(tmp_path, record)["lhs"].astype(np.float32)
    )
    assert sorted(record["made"]) == ["commit", "date", "versions"]
    assert record["made"]["versions"]["torch"] == storage.provenance()["versions"]["torch"]
    # Without the small file the whole one is enough.
    values.where(tmp_path / sampled.FOLDER, STEP).unlink()
    np.testing.assert_array_equal(sampled.load(tmp_path, record).claim.lhs, found.claim.lhs)


def test_what_is_kept_is_small():
    """At most two sides of four rows of float32, and the headers; 2 MB together."""
    sizes = {p: p.stat().st_size for p in
             (shipped.folder("records") / "draws" / sampled.FOLDER).rglob("*.npz")}  # fmt: skip
    assert {path for path, size in sizes.items() if size > 2 * 4 * 4 * sampled.MOST + 2048} == set()
    assert sum(sizes.values()) < 2e6

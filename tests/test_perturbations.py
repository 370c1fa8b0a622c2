"""The table of perturbations is of the code as it is: each row finds its place, and changes it."""

import perturbations
import pytest


@pytest.mark.parametrize("row", perturbations.TABLE, ids=lambda row: row.what)
def test_each_row_changes_one_place_of_its_file(row, tmp_path):
    perturbations.perturbed(row, tmp_path)
    before = (perturbations.ROOT / perturbations.PACKAGE / row.file).read_text(encoding="utf-8")
    after = (tmp_path / perturbations.PACKAGE / row.file).read_text(encoding="utf-8")
    assert after != before
    assert after == before.replace(row.old, row.new, 1)


def test_a_row_whose_place_is_gone_is_refused(tmp_path):
    row = perturbations.TABLE[0]._replace(old="a line that is not there")
    with pytest.raises(SystemExit, match="must hold"):
        perturbations.perturbed(row, tmp_path)

"""The claims on matrix sensing: each tied to its derivation and back, and what they share."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tolerance import rounding

from loraone_theory.claims import CLAIMS
from loraone_theory.claims.sensing import base
from loraone_theory.core.factors import Factors

NAMES = [name for name in CLAIMS if name.startswith("sensing/")]
DOCS = Path(__file__).resolve().parent.parent / "docs"
TEXT = (DOCS / "derivations_sensing.md").read_text(encoding="utf-8")


def sections() -> dict[str, str]:
    """Section -> its text: bold numbers, or headings where a section has none."""
    parts = re.split(r"^(?:\*\*(\d\.\d) |## (\d)\. )", TEXT, flags=re.MULTILINE)
    found = {}
    for bold, heading, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        found[bold or heading] = text
    return found


def named(text: str) -> set[str]:
    lines = re.findall(r"^Claims: (.*)$", text, flags=re.MULTILINE)
    return {name for line in lines for name in re.findall(r"sensing/[a-z0-9/-]+", line)}


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_is_named_by_its_section(name: str) -> None:
    section = CLAIMS[name].derivation.removeprefix("sensing ")
    place = {key: text for key, text in sections().items() if key.split(".")[0] == section[0]}
    texts = [place[section]] if section in place else list(place.values())
    assert any(name in named(text) for text in texts), section


def test_sections_name_claims_that_exist() -> None:
    assert named(TEXT) == set(NAMES)


def test_every_measured_figure_has_a_pointer_that_exists() -> None:
    table = TEXT[TEXT.index("## 9. Measured figures") :]
    rows = [line.split(" | ") for line in table.splitlines() if re.match(r"\| \d", line)]
    assert len(rows) > 20
    for _, figure, pointer in rows:
        found = re.findall(r"(?:tests|figures)/\w+\.\w+", pointer)
        found += re.findall(r"sensing/[a-z0-9/-]+", pointer)
        assert found or "measured again" in pointer, figure
        for where in found:
            known = where in CLAIMS or any(name.startswith(f"{where}/") for name in NAMES)
            assert known or (DOCS.parent / where).is_file(), where


def test_shared_pieces_longhand() -> None:
    """Tangent part and best approximation, from full projections and a full SVD."""
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((n, 2)))[0] for n in (7, 6))
    M = rng.standard_normal((7, 6))
    off_U, off_V = np.eye(7) - U @ U.T, np.eye(6) - V @ V.T
    shift = Factors(torch.from_numpy(U)[None], torch.from_numpy(V.T.copy())[None])
    found = base.tangent_part(shift, torch.from_numpy(M)[None])[0].numpy()
    close = {"rtol": 0, "atol": rounding(7, operations=8) * np.linalg.norm(M)}
    np.testing.assert_allclose(found, M - off_U @ M @ off_V, **close)
    left, S, right = np.linalg.svd(M, full_matrices=False)
    expected = sum(S[i] * np.outer(left[:, i], right[i]) for i in range(3))
    np.testing.assert_allclose(base.best(torch.from_numpy(M), 3).numpy(), expected, **close)
    assert float(base.half_square(torch.from_numpy(M))) == pytest.approx(
        0.5 * np.sum(M**2), rel=rounding(42)
    )

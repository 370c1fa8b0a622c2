"""A mark for each verdict: told apart by shape as well as by colour."""

from __future__ import annotations

from loraone_theory.claims import Finding
from loraone_theory.core.html import Html, tag

# Paths about the origin, 12 units wide.
_SHAPES = {
    Finding.SUPPORTED: "M6 0A6 6 0 1 1-6 0A6 6 0 1 1 6 0Z",
    Finding.CERTIFIED: "M0-7L7 0L0 7L-7 0Z",
    Finding.VIOLATED: (
        "M-6-3.5L-3.5-6L0-2.5L3.5-6L6-3.5L2.5 0L6 3.5L3.5 6L0 2.5L-3.5 6L-6 3.5L-2.5 0Z"
    ),
    Finding.INCONCLUSIVE: "M0-6A6 6 0 1 0 0 6ZM0-6A6 6 0 0 1 0 6",
    Finding.OUTSIDE_HYPOTHESES: "M-5-5H5V5H-5Z",
}


def css(finding: Finding) -> str:
    """The class of what is coloured by a verdict.

    >>> css(Finding.OUTSIDE_HYPOTHESES)
    'v-outside-hypotheses'
    """
    return "v-" + finding.value.lower().replace(" ", "-")


def shape(finding: Finding, x: float = 0.0, y: float = 0.0) -> Html:
    """The mark as part of an SVG."""
    return tag(
        "path",
        d=_SHAPES[finding],
        class_=f"mark {css(finding)}",
        transform=f"translate({x:g} {y:g})",
    )


def icon(finding: Finding) -> Html:
    """The mark on its own, beside a text that names the verdict."""
    return tag(
        "svg", shape(finding), class_="icon", viewBox="-8 -8 16 16", aria_hidden="true",
        focusable="false",
    )  # fmt: skip


def badge(finding: Finding) -> Html:
    """Mark and name."""
    return tag("span", icon(finding), finding.value, class_=f"badge {css(finding)}")

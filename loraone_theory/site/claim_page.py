"""The page of a claim."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from loraone_theory.claims import Finding
from loraone_theory.claims.report import command
from loraone_theory.core.html import Html, joined, tag
from loraone_theory.site import margin
from loraone_theory.site.entries import Entry
from loraone_theory.site.html import Page, page, upwards
from loraone_theory.site.links import Around, beside, linked, neighbours, picture, places
from loraone_theory.site.marks import badge
from loraone_theory.site.notation import heading, mathematics
from loraone_theory.sweeps.cost import in_words

KINDS = {
    "identity": "Identity: both sides agree on every draw, up to a tolerance",
    "bound": "Bound: holds on every draw, up to a tolerance",
    "probability": "Probability: holds with at least the promised probability",
    "value": "Value: the mean is the promised number, within an allowance",
    "certificate": "Certificate: proved on the whole domain by ball arithmetic",
}


def claim_page(entry: Entry, around: Around) -> Page:
    """The page of one claim, under its id."""
    up = upwards(entry.id)
    parts = [
        _path(entry, up),
        _verdict(entry),
        _part("Statement", tag("p", mathematics(entry.claim.statement), class_="statement")),
        _part("Hypotheses", _hypotheses(entry)),
        _part("How it is tested", _tested(entry)),
        _part("Margin", _margin(entry)),
        _part("Worst draw", _worst(entry)) if entry.record.get("worst_draw") else "",
        _part("Mutant", _mutant(entry)),
        _part("Measured", _numbers(entry)) if entry.record["numbers"] else "",
        _part("Reading", tag("p", linked(entry.claim.explanation, up, around)))
        if entry.claim.explanation
        else "",
        _part("Rests on, used by", neighbours(entry, up, around)),
        _part("Proof, code, figure", places(entry, up, around)),
    ]
    rest = [_part("Run it again, cite it", _again(entry, around)), beside(entry, up, around)]
    body: list[str] = [tag("div", *parts, class_="claim", data_id=entry.id)]
    body += [picture(entry, around)] if entry.claim.figure else []
    body += [tag("div", *rest, class_="claim")]
    return page(entry.id, heading(entry.claim.title), *body, orphan="true", hide_toc="true")


def _part(title: str, *inside: object) -> Html:
    name = re.sub(r"\W+", "-", title.lower())
    return tag("section", tag("h2", title, id=name), *inside, aria_labelledby=name)


def _path(entry: Entry, up: str) -> Html:
    """Where the page is, and what it is of."""
    links = [
        tag("a", "Claims", href=f"{up}index.html"),
        tag("a", entry.paper.title, href=f"{up}{entry.paper.id}/index.html"),
        tag("code", entry.id),
    ]
    trail = tag("nav", joined(links, " › "), class_="trail", aria_label="Where this is")
    return joined([trail, tag("p", mathematics(entry.claim.reference), class_="reference")])


def _verdict(entry: Entry) -> Html:
    record = entry.record
    said = tag(
        "p",
        badge(entry.finding),
        " ",
        tag("span", mathematics(f"{record['reason']}."), class_="reason"),
    )
    notes = [tag("p", _counts(record), class_="aside")]
    if record["verdict"] != record["expected"]:
        notes.append(tag("p", f"Expected {record['expected']}: this run contradicts the library."))
    elif entry.finding is Finding.VIOLATED:
        notes.append(tag("p", "Expected: that it is violated is the finding."))
    return tag("div", said, *notes, class_=f"verdict v-{entry.finding.value.lower().split()[0]}")


def _counts(record: Mapping[str, Any]) -> str:
    if record["about"]["kind"] == "certificate":
        return "No draws: a proof by subdivision of the domain."
    return (
        f"{record['trials']} draws, of which {record['inside']} meet the hypotheses; "
        f"confidence {record['confidence']:g} of a whole run; seed {record['seed']}."
    )


def _hypotheses(entry: Entry) -> Html:
    if not entry.claim.hypotheses:
        return tag("p", "None.")
    return tag("ul", *(tag("li", mathematics(text)) for text in entry.claim.hypotheses))


def _tested(entry: Entry) -> Html:
    kind = tag("p", KINDS[entry.claim.kind], ". Model: ", entry.model, ".", class_="aside")
    return joined([tag("p", mathematics(entry.claim.how)), kind])


def _margin(entry: Entry) -> Html:
    kind = entry.claim.kind
    if kind == "certificate":
        return tag("p", "There are no draws: the statement is proved, or refuted at a point.")
    if entry.sample is None:
        text = f"loraone verify {entry.id} --draws records/draws --json verdicts.json"
        words = "The draws of this verdict are not kept here. They are written by"
        return joined(
            [tag("p", words, class_="absent"), _code(text, "the command that keeps draws")]
        )
    drawn = margin.figure(entry.sample, kind, entry.record.get("worst_draw", {}))
    key = [
        ("dot", "draw"),
        *(
            [("dot outside", "outside the hypotheses")]
            if not entry.sample.claim.inside.all()
            else []
        ),
        ("cross", "draw of the mutant"),
        *([("ring", "worst draw")] if entry.record.get("worst_draw") else []),
        ("rule", "limit"),
        ("field", "where draws may lie" if kind != "value" else "where the mean may lie"),
        *([("stroke", "mean")] if kind == "value" else []),
    ]
    legend = [tag("span", tag("i", class_=f"key {c}", aria_hidden="true"), t) for c, t in key]
    below = tag("figcaption", tag("span", *legend, class_="keys"), " ", " ".join(drawn.notes))
    return tag("figure", drawn.svg, below)


def _worst(entry: Entry) -> Html:
    """The snippet: pasted into Python it prints the number."""
    worst = entry.record["worst_draw"]
    text = snippet(worst)
    words = f"Draw {worst['index']}: {worst['lhs']:.6g} against {worst['rhs']:.6g} promised."
    return joined([tag("p", words), _code(text, "the snippet", "python")])


def snippet(worst: Mapping[str, Any]) -> str:
    """Python that draws the worst draw again.

    >>> rerun = 'lt.claims.CLAIMS["a/b"].measure(lt.claims.Draws(1, 0, first=7)).lhs[0]'
    >>> print(snippet({"rerun": rerun, "lhs": 0.5}))
    import loraone_theory as lt
    <BLANKLINE>
    claim = lt.claims.CLAIMS["a/b"]
    evidence = claim.measure(lt.claims.Draws(1, 0, first=7))
    print(evidence.lhs[0])
    # 0.5
    """
    claim, _, rest = worst["rerun"].partition(".measure(")
    draws, _, entry = rest.rpartition(").lhs[")
    lines = [
        f"claim = {claim}",
        f"evidence = claim.measure({draws})",
        f"print(evidence.lhs[{entry})",
        f"# {worst['lhs']!r}",
    ]
    return "\n".join(["import loraone_theory as lt", "", *lines])


def _code(text: str, what: str, class_: str | None = None) -> Html:
    """Text to copy, with a button."""
    button = tag("button", "Copy", type="button", class_="copy", aria_label=f"Copy {what}")
    inside = tag(
        "pre", tag("code", text), tabindex="0", role="region", aria_label=what, class_=class_
    )
    return tag("div", inside, button, class_="to-copy")


def _mutant(entry: Entry) -> Html:
    record = entry.record
    found = Finding(record["mutant_verdict"])
    said = tag(
        "p",
        badge(found),
        " ",
        tag("span", mathematics(f"{record['mutant_reason']}."), class_="reason"),
    )
    words = "The claim, broken on purpose, must come out VIOLATED, or the test could not fail."
    statement = tag("p", mathematics(entry.claim.mutant_statement), class_="statement small")
    return joined([statement, said, tag("p", words, class_="aside")])


def _numbers(entry: Entry) -> Html:
    rows = [
        tag("tr", tag("th", mathematics(name), scope="row"), tag("td", _number(value)))
        for name, value in entry.record["numbers"].items()
    ]
    head = tag("tr", tag("th", "quantity", scope="col"), tag("th", "value", scope="col"))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="numbers")


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return str(value)
    return "not defined" if math.isnan(value) else f"{value:.4g}"


def _again(entry: Entry, around: Around) -> Html:
    record = entry.record
    made = record.get("made", {})
    versions = ", ".join(f"{name} {v}" for name, v in made.get("versions", {}).items())
    day, commit = made.get("date", ""), made.get("commit", "").rstrip("+")
    known = f" on {day}, by commit {commit[:12]}" if commit not in ("", "unknown") else ""
    words = f"Judged{known} in {in_words(record['seconds'])}" + (
        f", with {versions}." if versions else "."
    )
    if not made:
        words += " The record does not say when and with which versions."
    cite = f"loraone_theory {around.version}, claim {entry.id}, seed {record['seed']}"
    cite += f", commit {commit[:12]}, {day}" if known else ""
    cite += f": {record['verdict']}, {record['reason']}."
    return joined(
        [
            _code(command(dict(record)), "the command"),
            tag("p", words, class_="aside"),
            tag("h3", "How to cite this verdict"),
            _code(cite, "the citation"),
        ]
    )

"""The index of all claims: a list that is whole without a script, and that claims.js filters."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from loraone_theory.claims import Finding
from loraone_theory.core.html import Html, joined, tag
from loraone_theory.site.entries import MODELS, Entry
from loraone_theory.site.html import Page, page
from loraone_theory.site.marks import badge, icon
from loraone_theory.site.notation import mathematics

_FACETS: tuple[tuple[str, str, Callable[[Entry], str]], ...] = (
    ("verdict", "Verdict", lambda e: e.finding.value),
    ("kind", "Kind", lambda e: e.claim.kind),
    ("model", "Model", lambda e: e.model),
    ("paper", "Paper", lambda e: e.paper.id),
)
_HELP = (
    ("paper:scaled-gd", "claims of a paper"),
    ("verdict:violated,outside", "one verdict or another"),
    ("theorem:3.2", "a statement of a paper"),
    ("kind:bound", "identity, bound, probability, value, certificate"),
    ("model:relu", "linear, relu, sensing, symmetric, any"),
    ("hypothesis:spectral-init", "a word among the hypotheses; “…” for several"),
    ("kappa", "a word anywhere; Greek letters by sign or by name"),
    ("-paper:lora-one", "with a minus: what does not match"),
)


def searchable(*texts: str) -> str:
    """Text as claims.js compares it: small letters, plain digits, no room around relations.

    Greek letters stand by name too.

    >>> searchable("‖A₀B₀ − Δ‖ ≤ κ")
    '‖a0b0 − δ‖≤κ delta kappa'
    """
    text = " ".join(unicodedata.normalize("NFKC", " ".join(texts)).lower().split())
    text = re.sub(" ?([=<>≤≥]) ?", r"\1", text)
    names = [
        unicodedata.name(letter, "").rpartition(" ")[2].lower()
        for letter in dict.fromkeys(text)
        if "α" <= letter <= "ω"
    ]
    return " ".join([text, *names])


def index_page(entries: Sequence[Entry], graphs: Iterable[str]) -> Page:
    """The index.

    Args:
        entries: all claims, in the order of the report.
        graphs: the pages with a graph, for the table of contents.
    """
    count = Counter(entry.finding for entry in entries)
    total = joined(
        [tag("li", badge(f), " ", str(count[f])) for f in Finding if count[f]],
    )
    body = [
        tag("p", f"{len(entries)} claims, each measured, judged, and broken on purpose. What the "
            "verdicts mean stands on each page, and in ", tag("a", "How to read a verdict",
            href="#how-to-read-a-verdict"), " below."),
        tag("ul", total, class_="totals"),
        _search(),
        _facets(entries),
        tag("p", f"{len(entries)} claims", id="found", role="status", aria_live="polite"),
        tag("ol", *map(_row, entries), id="claim-list", class_="claims"),
        tag("p", "No claim matches. Leave a word out.", id="none", hidden="hidden"),
        _verdicts(),
    ]  # fmt: skip
    pages = "\n".join(graphs)
    contents = f"```{{toctree}}\n:hidden:\n\n{pages}\n```\n"
    html = tag("div", *body, class_="explorer")
    return page("index", "Claims", html, contents, hide_toc="true")


def _search() -> Html:
    rows = [tag("li", tag("code", text), " ", words) for text, words in _HELP]
    field = tag("input", id="query", type="search", autocomplete="off", spellcheck="false",
                placeholder="paper:scaled-gd verdict:violated kappa",
                aria_describedby="query-help")  # fmt: skip
    clear = tag("button", "Clear", type="button", id="clear")
    line = tag("div", field, clear, class_="line")
    ways = tag("details", tag("summary", "What can be typed"), tag("ul", *rows), id="query-help")
    return tag("form", tag("label", "Filter", for_="query"), line, ways, role="search",
               id="search", hidden="hidden", aria_label="Claims")  # fmt: skip


def _facets(entries: Sequence[Entry]) -> Html:
    """What can be chosen without typing."""
    lists = tag(
        "div", _choice("theorem", "Statement", (e.statement for e in entries)),
        _choice("hypothesis", "Hypothesis", (h for e in entries for h in e.claim.hypotheses)),
        class_="choices",
    )  # fmt: skip
    boxes = tag("div", *(_facet(name, title, of, entries) for name, title, of in _FACETS),
                class_="boxes")  # fmt: skip
    return tag("details", tag("summary", "Choose"), boxes, lists, class_="facets", hidden="hidden")


def _facet(name: str, title: str, of: Callable[[Entry], str], entries: Sequence[Entry]) -> Html:
    """Boxes to tick, each with its number of claims."""
    count = Counter(map(of, entries))
    order = {"verdict": [f.value for f in Finding], "model": list(MODELS)}.get(name, list(count))
    boxes = [_box(name, value, count[value]) for value in order if count[value]]
    return tag("fieldset", tag("legend", title), *boxes, data_facet=name)


def _box(name: str, value: str, count: int) -> Html:
    given = value.lower().replace(" ", "-") if name == "verdict" else value.lower()
    box = tag("input", type="checkbox", name=name, value=given)
    mark = icon(Finding(value)) if name == "verdict" else ""
    words = value.lower() if name == "verdict" else value
    return tag("label", box, mark, " ", words, " ", tag("span", str(count), class_="count"))


def _choice(name: str, title: str, values: Iterable[str]) -> Html:
    """A list to choose one from, the most frequent first."""
    count = Counter(values)
    options = [tag("option", "any", value="")]
    options += [tag("option", f"{v} ({n})", value=v) for v, n in count.most_common()]
    chooser = tag("select", *options, name=name, id=f"choose-{name}")
    return tag("p", tag("label", title, for_=f"choose-{name}"), " ", chooser, class_="choice")


def _row(entry: Entry) -> Html:
    claim, record = entry.claim, entry.record
    given = {
        "paper": entry.paper.id,
        "theorem": searchable(entry.statement, claim.reference),
        "kind": claim.kind,
        "model": entry.model.lower(),
        "verdict": entry.finding.value.lower().replace(" ", "-"),
        "hypothesis": " | ".join(map(searchable, claim.hypotheses)),
        "text": searchable(claim.id, entry.paper.title, claim.title, claim.statement, claim.how,
                           claim.explanation, claim.reference, *claim.aliases, record["reason"],
                           *claim.hypotheses, claim.kind, entry.model, entry.finding.value),
    }  # fmt: skip
    name = tag("a", mathematics(claim.title), href=f"{claim.id}.html")
    return tag(
        "li", badge(entry.finding), tag("span", name, class_="title"), tag("code", claim.id),
        tag("span", mathematics(claim.reference), class_="reference"),
        tag("span", claim.kind, class_="kind"),
        **{f"data_{key}": value for key, value in given.items()},
    )  # fmt: skip


_MEANINGS = {
    Finding.SUPPORTED: "holds on every draw inside its hypotheses, with the promised probability, "
    "or with a mean whose whole confidence interval lies within the stated allowance",
    Finding.CERTIFIED: "true on the whole domain, by ball arithmetic",
    Finding.VIOLATED: "does not hold; some claims are expected to be violated, and their pages say "
    "why",
    Finding.INCONCLUSIVE: "too few draws to decide",
    Finding.OUTSIDE_HYPOTHESES: "no draw met the hypotheses, so nothing was tested",
}


def _verdicts() -> Html:
    rows = [joined([tag("dt", badge(f)), tag("dd", words)]) for f, words in _MEANINGS.items()]
    title = tag("h2", "How to read a verdict", id="how-to-read-a-verdict")
    return tag("section", title, tag("dl", *rows, class_="meanings"))

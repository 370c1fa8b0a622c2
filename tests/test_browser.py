"""The site in a browser: the filter, a claim's page, graphs, search, keys alone, and no network."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from browser import browser as headless
from browser import inaccessible, missing
from site_pages import DOCS, ROOT, import_its_code

from loraone_theory import experiment
from loraone_theory.claims import CLAIMS, Finding, verdict
from loraone_theory.claims.lora_one.paper import theorem_4_2
from loraone_theory.dynamics import loop

pytest.importorskip("sphinx", reason="the extra docs is not installed")
import_its_code()
import public  # noqa: E402
import rootpages  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

RECORDS = verdict.load(ROOT / "records" / "verdicts.json")
IDS = [record["id"] for record in RECORDS]
INDEX, CLAIM = "claims/index.html", "claims/lora-one/theorem-4.2.html"
GRAPH = "claims/sensing/index.html"
MODULE, FUNCTION = (each.__name__.replace(".", "/") for each in (theorem_4_2, loop))
FILES = {path.name for path in DOCS.glob("*.md")} | set(rootpages.PAGES.values())
# All that are written by hand, and of those that are made one of every kind.
PAGES = (
    *(f"{Path(name).stem}.html" for name in sorted(FILES)),
    INDEX, GRAPH, CLAIM, "gallery/index.html", "reference/index.html",
    f"claims/source/{MODULE}.html",
    f"gallery/{min(experiment.find())}.html",
    f"reference/{public.pages()[0].name}.html",
    f"_modules/{FUNCTION}.html",
    "search.html?q=rank", "genindex.html",
)  # fmt: skip
WIDTHS, SCHEMES = (1280, 390), ("light", "dark")
# Each page both wide and narrow, both light and dark; every other page the other way round.
VIEWS = [
    (path, width, SCHEMES[(i + j) % 2])
    for i, path in enumerate(PAGES)
    for j, width in enumerate(WIDTHS)
]
# More than a reader would press to get through the links before the page itself.
MANY_KEYS = 60


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The site on this machine alone."""
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with headless() as started:
        yield started


@pytest.fixture
def opened(browser, address):
    """Opens pages; any request that would leave the machine is stopped, and fails the test."""
    contexts, elsewhere, errors = [], [], []

    def open_page(path: str, width: int = 1280, scheme: str = "light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme,
            permissions=["clipboard-read", "clipboard-write"],
        )  # fmt: skip
        contexts.append(context)

        def local(route):
            url = route.request.url
            inside = url.startswith(address) or urlsplit(url).scheme in ("data", "blob")
            if not inside:
                elsewhere.append(url)
            route.continue_() if inside else route.abort()

        context.route("**/*", local)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert elsewhere == []
    assert errors == []


def shown(page) -> list[str]:
    """Ids of the claims that the index shows."""
    return page.eval_on_selector_all(
        "#claim-list > li:not([hidden]) > code", "ids => ids.map(id => id.textContent)"
    )


def having(**wanted: str) -> list[str]:
    return [r["id"] for r in RECORDS if all(r[k] == v for k, v in wanted.items())]


def inside(*words: str) -> list[str]:
    """Ids of the claims that have one of the words in what is said of them."""
    found = []
    for name in IDS:
        claim = CLAIMS[name]
        text = " ".join((name, claim.title, claim.statement, claim.how, claim.explanation,
                         claim.reference))  # fmt: skip
        if any(word in text for word in words):
            found.append(name)
    return found


VIOLATED = having(verdict="VIOLATED")


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", IDS),
        ("verdict:violated", VIOLATED),
        ("VERDICT:Violated", VIOLATED),
        ("-verdict:violated", [name for name in IDS if name not in VIOLATED]),
        ("verdict:violated,outside", [r["id"] for r in RECORDS if r["verdict"] in
                                      ("VIOLATED", "OUTSIDE HYPOTHESES")]),
        ("paper:scaled-gd", [n for n in IDS if n.startswith("scaled-gd/")]),
        ("paper:nora,riemannian", [n for n in IDS if n.split("/")[0] in ("nora", "riemannian")]),
        ("kind:certificate", [n for n in IDS if CLAIMS[n].kind == "certificate"]),
        ("theorem:3.3 paper:lora-one verdict:outside",
         ["lora-one/theorem-3.3/second/n-16d"]),
        ('hypothesis:"spectral-init"', [n for n in IDS if any("spectral-init" in h.lower()
                                                     for h in CLAIMS[n].hypotheses)]),
        ('hypothesis:"r < r*" paper:nora', ["nora/under-rank", "nora/under-rank/alternating"]),
        ('hypothesis:"r<r*" paper:nora', ["nora/under-rank", "nora/under-rank/alternating"]),
        ("paper: nora", [n for n in IDS if n.startswith("nora/")]),
        ("no-such-word-anywhere", []),
    ],
)  # fmt: skip
def test_the_filter_takes_what_a_person_types(opened, query, wanted):
    page = opened(INDEX)
    page.fill("#query", query)
    assert shown(page) == wanted
    count = f"{len(wanted)} of {len(IDS)} claims" if wanted != IDS else f"{len(IDS)} claims"
    assert page.inner_text("#found") == count
    assert page.is_visible("#none") == (not wanted)


def test_greek_letters_are_found_by_sign_and_by_name(opened):
    page = opened(INDEX)
    page.fill("#query", "κ")
    by_sign = set(shown(page))
    assert set(inside("κ")) <= by_sign < set(IDS)
    page.fill("#query", "kappa")
    assert by_sign <= set(shown(page))


def test_verdicts_and_hypotheses_are_found_as_plain_words(opened):
    page = opened(INDEX)
    page.fill("#query", "violated paper:lora-one")
    own = {n for n in IDS if n.startswith("lora-one/")}
    assert own & set(VIOLATED) <= set(shown(page)) < own
    page.fill("#query", "spectral-init")
    named = {n for n in IDS if any("spectral-init" in h.lower() for h in CLAIMS[n].hypotheses)}
    assert named
    assert named <= set(shown(page))


def test_boxes_and_lists_write_the_query_and_the_address_keeps_it(opened):
    page = opened(INDEX)
    page.check("input[name=verdict][value=violated]")
    page.check("input[name=paper][value=riemannian]")
    page.check("input[name=paper][value=lora-one]")
    assert page.input_value("#query") == "verdict:violated paper:lora-one,riemannian"
    wanted = [n for n in VIOLATED if n.split("/")[0] in ("lora-one", "riemannian")]
    assert shown(page) == wanted
    assert page.url.endswith("#q=" + quote(page.input_value("#query"), safe=""))
    page.reload()
    assert shown(page) == wanted
    assert page.is_checked("input[name=paper][value=riemannian]")
    page.uncheck("input[name=paper][value=lora-one]")
    page.select_option("#choose-theorem", "regulariser")
    assert page.input_value("#query") == "verdict:violated paper:riemannian theorem:regulariser"
    assert shown(page) == ["riemannian/regulariser/peft-default"]
    page.click("#clear")
    assert shown(page) == IDS
    assert page.input_value("#choose-theorem") == ""


def test_links_may_ask_for_a_filter(opened):
    page = opened(GRAPH)
    page.click("text=All claims")
    page.wait_for_selector("#search:visible")
    assert shown(page) == [n for n in IDS if n.startswith("sensing/")]


def test_without_a_script_every_claim_is_listed(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address + INDEX)
    assert page.locator("#claim-list > li:visible").count() == len(IDS)
    assert not page.is_visible("#search")
    context.close()


def test_the_page_of_a_claim(opened):
    page = opened(CLAIM)
    record = next(r for r in RECORDS if r["id"] == "lora-one/theorem-4.2")
    assert page.locator("h1").count() == 1
    assert page.inner_text(".verdict .badge").strip() == record["verdict"]
    page.click("button[aria-label='Copy the command']")
    page.wait_for_selector("button:has-text('Copied')")
    asked = f"--trials {record['requested']} --seed {record['seed']}"
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"loraone verify lora-one/theorem-4.2 {asked}"
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    page.click("nav.beside a[rel=next]")
    page.wait_for_url("**/" + IDS[IDS.index("lora-one/theorem-4.2") + 1] + ".html")
    page.click("nav.beside a[rel=prev]")
    page.wait_for_url("**/lora-one/theorem-4.2.html")


# From the anchor of a line to that of the next.
LINE = """(() => {
    let text = "", next = document.querySelector(":target").nextSibling;
    while (next && !(next.id || "").startsWith("line-")) {
        text += next.textContent;
        next = next.nextSibling;
    }
    return text;
})()"""


def test_proof_and_code_are_where_the_page_says(opened):
    page = opened(CLAIM)
    page.click(".places a:has-text('Derivations')")
    page.wait_for_url("**/derivations.html#section-5.4")
    section = page.evaluate("document.querySelector(':target').closest('section').innerText")
    assert section.startswith("5.4 Rates at r = r*")
    page.go_back()
    page.click(".places a:has-text('theorem_4_2.py')")
    page.wait_for_url("**/theorem_4_2.html#line-*")
    line = page.evaluate(LINE)
    assert line.split()[0].isdigit()
    assert line.split()[1].startswith("measure=lambda")


def test_rows_of_a_graph_are_links_and_light_their_lines(opened):
    page = opened("claims/lora-one/index.html")
    name = "lora-one/relu/lemma-a"
    row = page.locator(f"svg.graph a[data-id='{name}']")
    assert row.locator("title").text_content().startswith(f"{name}: {CLAIMS[name].title}")
    row.hover()
    users = [n for n in IDS if name in CLAIMS[n].uses and n.startswith("lora-one/")]
    assert page.locator(".join.lit").count() == len(users) + len(CLAIMS[name].uses)
    row.click()
    page.wait_for_url(f"**/claims/{name}.html")


def test_the_search_of_the_site_finds_claims(opened):
    page = opened("search.html?q=logarithmic")
    page.wait_for_selector("ul.search li a")
    found = page.eval_on_selector_all(
        "ul.search li a", "all => all.map(a => a.getAttribute('href'))"
    )
    assert any("claims/lora-one/theorem-3.2.html" in link for link in found)


def focused(page) -> str:
    """Id, or name and value or address, of what has the focus."""
    return page.evaluate(
        "(e => e.id || `${e.name || ''}=${e.value || e.getAttribute('href') || ''}`)"
        "(document.activeElement)"
    )


def until(page, wanted: str, key: str = "Tab") -> None:
    """Press a key until something has the focus."""
    for _ in range(MANY_KEYS):
        if focused(page) == wanted:
            return
        page.keyboard.press(key)
    raise AssertionError(f"{wanted} is not reached by {key}; the focus is on {focused(page)}")


def test_keys_alone_are_enough(opened):
    page = opened(INDEX)
    until(page, "query")
    page.keyboard.type("paper:nora")
    until(page, "verdict=supported")
    page.keyboard.press("Space")
    assert page.is_checked("input[name=verdict][value=supported]")
    wanted = [n for n in having(verdict="SUPPORTED") if n.startswith("nora/")]
    assert shown(page) == wanted
    until(page, f"={wanted[0]}.html")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/{wanted[0]}.html")


def test_graphs_are_reached_by_keys(opened):
    page = opened("claims/nora/index.html")
    page.locator(".wide").focus()
    until(page, "=../nora/one-step.html")
    name = page.evaluate("document.activeElement.dataset.id")
    assert name == "nora/one-step"
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/{name}.html")


@pytest.mark.parametrize(("path", "width", "scheme"), VIEWS)
def test_pages_fit_and_are_accessible(opened, path, width, scheme):
    page = opened(path, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert inaccessible(page) == []


@pytest.mark.parametrize("finding", sorted({r["verdict"] for r in RECORDS}))
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_page_of_each_verdict_is_accessible(opened, finding, scheme):
    name = next(r["id"] for r in RECORDS if r["verdict"] == Finding(finding))
    page = opened(f"claims/{name}.html", 390, scheme)
    assert inaccessible(page) == []

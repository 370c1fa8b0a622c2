"""The site: every public name is documented, links have an end, nothing is fetched."""

import doctest
import importlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from site_pages import BUILT, DOCS, ROOT, import_its_code

import loraone_theory as lt

if any(importlib.util.find_spec(name) is None for name in ("sphinx", "myst_nb", "latex2mathml")):
    pytest.skip("the extra docs is not installed", allow_module_level=True)

from markdown_it import MarkdownIt

import_its_code()
import check_site  # noqa: E402
import gallery  # noqa: E402
import public  # noqa: E402

# Packages that are as good as absent; then every page of the reference is asked for its names.
WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[2:]))
sys.path.insert(0, sys.argv[1])
import public
print(sum(len(public.names(page)) for page in public.pages()))
"""

PUBLIC = [(page, name) for page in public.pages() for name in public.names(page)]


def test_every_public_name_is_on_a_page():
    full = {name.full for _, name in PUBLIC}
    assert len(full) == len(PUBLIC)
    assert {f"loraone_theory.{name}" for name in public.of_package()} <= full
    listed = {
        f"loraone_theory.{name}.{inner}"
        for name in lt.__all__
        for inner in getattr(getattr(lt, name), "__all__", ())
    }
    shown = {id(name.value) for _, name in PUBLIC}
    modules = {id(importlib.import_module(f"loraone_theory.{m}")) for p in public.pages()
               for m in p.modules}  # fmt: skip
    for each in listed:
        module, _, name = each.rpartition(".")
        value = getattr(getattr(lt, module.rpartition(".")[2]), name)
        assert id(value) in shown | modules, f"{each} is on no page of the reference"


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def brought(extras: Iterable[str]) -> set[str]:
    """Names of the packages that come with the library and these extras, and with those in turn."""
    asked = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    todo, seen = [(need, "") for need in map(Requirement, asked)], set()
    while todo:
        need, of = todo.pop()
        if need.marker is not None and not need.marker.evaluate({"extra": of}):
            continue
        for extra in {"", *need.extras}:
            if (one := (canonicalize_name(need.name), extra)) not in seen:
                seen.add(one)
                for found in importlib.metadata.distributions(name=one[0]):
                    todo += [(Requirement(line), extra) for line in found.requires or []]
    return {name for name, _ in seen}


def test_the_packages_that_are_installed_for_the_site_are_enough_for_it():
    """Every documented module can be imported without what other extras bring."""
    made = (ROOT / "Makefile").read_text(encoding="utf-8")
    line = re.search(r"\.installed-docs:.*\n.*-e \"\.\[(.*?)\]\"", made)
    here = brought(line.group(1).split(","))
    others = brought(EXTRAS) - here
    assert {"sphinx", "torch"} <= here
    assert {"playwright", "numba"} <= others
    absent = [
        module
        for module, homes in importlib.metadata.packages_distributions().items()
        if {canonicalize_name(home) for home in homes} <= others
    ]
    call = [sys.executable, "-c", WITHOUT, str(DOCS / "_ext"), *absent]
    ended = subprocess.run(call, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert int(ended.stdout) == len(PUBLIC)


@pytest.mark.parametrize("page", sorted({page.name for page, _ in PUBLIC}))
def test_every_public_name_is_documented(page):
    names = [name for where, name in PUBLIC if where.name == page]
    lacking = [name.full for name in names if not name.text]
    lacking += [m.full for name in names for m in name.members() if not m.text]
    assert lacking == []


def test_what_lacks_a_text_is_found(tmp_path, monkeypatch):
    source = tmp_path / "loraone_theory_lacking.py"
    source.write_text("# Said.\nSAID = 1\nUNSAID = 2\n\n\ndef unsaid():\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("loraone_theory_lacking")
    found = [public.Name(module.__name__, n, getattr(module, n)) for n in ("SAID", "UNSAID")]
    assert [name.text for name in found] == ["Said.", ""]
    assert public.Name(module.__name__, "unsaid", module.unsaid).text == ""


WRITTEN = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: path.name)
def test_signs_are_not_taken_for_emphasis(page):
    """∇_A Q and ∇_B, 𝒜*𝒜 and K*K: Markdown would set what is between two signs in italics."""
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text("utf-8")):
        before = ""
        for inner in token.children or ():
            if inner.type in ("em_open", "strong_open"):
                assert inner.markup != "_", inner
                assert not before[-1:].isalnum(), f"a star after {before[-40:]!r}"
            before = inner.content


def test_examples_of_the_site_s_own_code():
    for path in sorted([*(DOCS / "_ext").glob("*.py"), DOCS / "check_site.py"]):
        module = importlib.import_module(path.stem)
        assert doctest.testmod(module).failed == 0, path.name


@pytest.mark.parametrize("page", ["index.md", "verdicts.md"])
def test_examples_print_what_the_page_says(page):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testfile(str(DOCS / page), module_relative=False, optionflags=flags)
    assert found.attempted > 4
    assert found.failed == 0


def test_each_experiment_tells_all_that_its_page_shows():
    found = gallery.scripts(ROOT)
    assert len(found) > 15
    for script in found:
        assert script.title, script.name
        assert len(script.expected) > 40, f"{script.name} does not say what is expected"
        assert script.pictures()[0].stem == script.name
        assert {"config", "seeds", "wall_time_s", "commit", "versions"} <= set(script.about)
        knobs = {knob.name for knob in script.knobs() if knob.text}
        assert knobs >= set(script.about["config"]), script.name
    shown = [path for script in found for path in script.pictures()]
    assert sorted(shown) == sorted((ROOT / "figures").glob("*.png"))
    large = [full for script in found if (full := script.at_full_size) is not None]
    shown = [path for full in large for path in full.pictures()]
    assert sorted(shown) == sorted((ROOT / "figures" / "full").glob("*.png"))
    assert len(shown) > 0
    for full in large:
        assert "--preset full --out figures/full" in full.command
        assert gallery.page(full).count(f"figures/full/{full.name}.png") == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('<script src="https://cdn.org/a.js"></script>', "loads https://cdn.org/a.js"),
        ('<link rel="stylesheet" href="//fonts.org/a.css">', "loads //fonts.org/a.css"),
        ('<style>@import url("http://a.org/b.css")</style>', "loads http://a.org/b.css"),
        ('<p style="background: url(https://a.org/b.png)">', "loads https://a.org/b.png"),
        ('<a href="nowhere.html">', "no file nowhere.html"),
        ('<a href="#nowhere">', "no anchor #nowhere"),
        ('<img src="nowhere.png">', "no file nowhere.png"),
        ('<a href="https://elsewhere.org/a">', None),
        ('<a href="#here"><b id="here">', None),
    ],
)
def test_faults_of_a_page_are_found(text, fault, tmp_path):
    (tmp_path / "index.html").write_text(f"<!doctype html><html><body>{text}</body></html>")
    found = check_site.faults(tmp_path)
    assert found == ([] if fault is None else [f"index.html: {fault}"])


def test_a_style_sheet_that_loads_from_elsewhere_is_found(tmp_path):
    (tmp_path / "a.css").write_text("@font-face { src: url('https://fonts.org/a.woff2') }")
    assert check_site.faults(tmp_path) == ["a.css: loads https://fonts.org/a.woff2"]


@pytest.mark.slow
def test_the_site_has_no_faults(site):
    """Every link has an end, nothing is loaded from elsewhere, no script asks for anything."""
    assert check_site.faults(site) == []
    pages = check_site.read(site)
    assert len(pages) > 30
    scripts = [p for p in site.rglob("*.js") if re.search(r"fonts\.g|cdn\.", p.read_text("utf-8"))]
    assert scripts == []


@pytest.mark.slow
def test_every_public_name_has_an_anchor(site):
    pages = check_site.read(site)
    for page, name in PUBLIC:
        assert name.full in pages[Path("reference") / f"{page.name}.html"].ids


@pytest.mark.slow
def test_pages_have_a_language_a_title_one_heading_and_described_pictures(site):
    for path in sorted(site.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        where = path.relative_to(BUILT)
        if where.parts[0] in ("_static", "_modules"):
            continue
        assert '<html class="no-js" lang="en"' in text, where
        assert re.search(r"<title>[^<]+</title>", text), where
        pictures = re.findall(r"<img\b[^>]*>", text)
        assert all(re.search(r'alt="[^"]+"', picture) for picture in pictures), where
        if where.name != "search.html":  # a script writes what is found, with its heading
            assert len(re.findall(r"<h1\b", text)) == 1, where

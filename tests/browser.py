"""Pages in a headless browser, the distribution's Chromium; without it the tests are skipped."""

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
LOCAL = {"127.0.0.1", "localhost", None}  # None: data: and blob:, which no server is asked for
SIZES = ((1280, 900), (390, 844))


def missing() -> str | None:
    """Why no page can be tested here, or None."""
    for package in ("playwright", "axe_playwright_python"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed (the extra test)"
    if not any(shutil.which(name) for name in NAMES):
        return f"none of {', '.join(NAMES)} is on the path"
    return None


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium, or a skip with the reason."""
    why = missing()
    if why is not None:
        pytest.skip(why)
    from playwright.sync_api import sync_playwright

    path = next(found for name in NAMES if (found := shutil.which(name)))
    with sync_playwright() as play:
        # Without a sandbox of its own, which a container does not give; the pages are ours.
        made = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield made
        finally:
            made.close()


@contextmanager
def page(made: Any, *, dark: bool = False, size: tuple[int, int] = SIZES[0]) -> Iterator[Any]:
    """A page of its own, with leave to use the clipboard; `asked` of it lists every request."""
    context = made.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        permissions=["clipboard-read", "clipboard-write"],
    )
    opened = context.new_page()
    opened.asked = []
    opened.on("request", lambda request: opened.asked.append(request.url))
    try:
        yield opened
    finally:
        context.close()


def abroad(urls: list[str]) -> list[str]:
    """Those that another machine would have to answer.

    >>> abroad(["http://127.0.0.1:80/a", "data:text/plain,", "https://example.org/"])
    ['https://example.org/']
    """
    return [url for url in urls if urlsplit(url).hostname not in LOCAL]


def inaccessible(shown: Any) -> list[str]:
    """What axe finds wrong with a page: the rule, how often, and the first place."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(shown).response["violations"]
    return [f"{v['id']} ({len(v['nodes'])}): {v['nodes'][0]['html'][:200]}" for v in found]

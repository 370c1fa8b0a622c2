"""The page of `loraone explore` in a browser: sliders, theory, script, keyboard, no network."""

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import SIZES, abroad, browser, inaccessible, page
from test_explore import carried_out

import loraone_theory as lt
from loraone_theory.explore import model, plot
from loraone_theory.explore.script import script
from loraone_theory.explore.settings import Settings

pytestmark = pytest.mark.slow
pytest.importorskip("marimo", reason="the extra explore is not installed")

# Put on the path as `sitecustomize`: connections of the server are refused and noted.
NOTED = """
import socket
def refused(self, address):
    with open({log!r}, "a") as file:
        print(address, file=file)
    raise OSError(f"no network here: {{address}}")
socket.socket.connect = socket.socket.connect_ex = refused
"""
ADDRESS = re.compile(r"http://[\w.]+:(\d+)\S*access_token=(\S+)")
PATIENCE = 120_000  # ms


class Server:
    def __init__(self, line: str, log: Path) -> None:
        found = ADDRESS.search(line)
        assert found is not None, line
        self.port, self.token, self.log = int(found[1]), found[2], log
        self.plain = f"http://127.0.0.1:{self.port}/"
        self.address = f"{self.plain}?access_token={self.token}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "sitecustomize.py").write_text(NOTED.format(log=str(folder / "connections")))
    package = str(Path(lt.__file__).resolve().parent.parent)
    path = os.pathsep.join([str(folder), package, os.environ.get("PYTHONPATH", "")])
    # marimo behaves otherwise where it believes to be tested.
    plain = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "loraone_theory", "explore", "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=plain | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "HOME": str(folder)},
    )
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if ADDRESS.search(line):
                break
        made = Server("".join(said), folder / "connections")
        answering(made)
        yield made
    finally:
        process.terminate()
        process.communicate(timeout=60)


def answering(made: Server) -> None:
    """The address is printed a little before it is served."""
    end = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{made.plain}health"):
                return
        except urllib.error.URLError:
            time.sleep(0.05)
    raise TimeoutError(f"no answer at {made.plain}")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as made:
        yield made


@pytest.fixture
def shown(chromium: Any, server: Server) -> Iterator[Any]:
    with page(chromium) as opened:
        ready(opened, server)
        yield opened


def ready(opened: Any, server: Server) -> None:
    opened.set_default_timeout(PATIENCE)
    opened.goto(server.address)
    settled(opened, Settings().steps)
    opened.wait_for_selector("#lab-code")


def settled(opened: Any, steps: int) -> None:
    """Wait for curves of runs that are at their end."""
    opened.wait_for_selector(f'svg.lab-panel[data-record="loss"][data-done="{steps}"]')


def move(opened: Any, name: str, key: str) -> None:
    """Press a key on a slider, and wait until the curves are others."""
    before = opened.locator(".lab-figure, .lab-refusal").inner_html()
    opened.get_by_role("slider", name=name, exact=True).press(key)
    opened.wait_for_function(
        "old => document.querySelector('.lab-figure, .lab-refusal').innerHTML !== old", arg=before
    )


def paths(html: str) -> list[str]:
    return re.findall(r'<path d="([^"]*)"[^>]*data-method', html)


def points(d: str) -> np.ndarray:
    return np.array([p.split() for p in re.findall(r"[ML]([^ML]*)", d)], dtype=float)


def test_the_page_is_for_this_machine_and_a_token(server: Server) -> None:
    with urllib.request.urlopen(server.plain) as answer:
        assert "login" in answer.url
    table = Path("/proc/net/tcp")
    if not table.exists():
        pytest.skip("this system does not list its ports in /proc")
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A"]
    ours = [at for at in listening if int(at.split(":")[1], 16) == server.port]
    assert ours == [f"0100007F:{server.port:04X}"]


def test_a_slider_moves_the_curves_and_the_theory(shown: Any) -> None:
    before = paths(shown.locator(".lab-figure").inner_html())
    assert before == paths(plot.figure(model.run(Settings())))
    move(shown, "condition number κ", "ArrowRight")
    chosen = replace(Settings(), condition_number=6.0)
    shown.wait_for_function("document.querySelector('#lab-code').textContent.includes('=6.0')")
    after = paths(shown.locator(".lab-figure").inner_html())
    assert after == paths(plot.figure(model.run(chosen)))
    assert after != before

    # The dashed line over the loss falls at the rate that lt.predict gives.
    problem = lt.sample_linear(d=50, k=40, true_rank=4, samples=800, condition_number=6.0)
    near = lt.predict.contraction(problem, "lora", rank=4)
    panel = shown.locator('svg[data-record="loss"]')
    low, high, last = (float(x) for x in panel.get_attribute("data-axis").split()[1:])
    line = panel.locator('path[data-method="lora"][data-line="local rate"]')
    at = points(line.get_attribute("d"))
    across = last / (plot.WIDTH - plot.LEFT - plot.RIGHT)
    height = np.log(high / low) / (plot.HEIGHT - plot.TOP - plot.BOTTOM)
    slope = -height * (at[-1, 1] - at[0, 1]) / (across * (at[-1, 0] - at[0, 0]))
    rate = float(near.loss_rate(0.5 * float(near.best_step)))
    # Coordinates have two decimals, and both ends of both differences are off by half of the last.
    off = height * 0.01 / (across * (at[-1, 0] - at[0, 0])) - slope * 0.01 / (at[-1, 0] - at[0, 0])
    assert slope == pytest.approx(2 * np.log(rate), abs=off)


def test_the_script_gives_the_plotted_numbers(shown: Any) -> None:
    move(shown, "samples N / d", "ArrowLeft")
    shown.wait_for_function("document.querySelector('#lab-code').textContent.includes('=600')")
    shown.get_by_role("button", name="Copy as code").click()
    shown.wait_for_function("document.querySelector('#lab-copied').textContent === 'copied'")
    code = shown.evaluate("navigator.clipboard.readText()")
    found = carried_out(code)
    panel = shown.locator('svg[data-record="loss"]')
    low, high, _ = (float(x) for x in panel.get_attribute("data-axis").split()[1:])
    for method in Settings().methods:
        at = points(panel.locator(f'path[data-method="{method}"][data-line=""]').get_attribute("d"))
        expected = found["curves"][method]["loss"][:, 0]
        up = (plot.HEIGHT - plot.BOTTOM - at[:, 1]) / (plot.HEIGHT - plot.TOP - plot.BOTTOM)
        span = np.log10(high / low)
        off = 0.0051 * span / (plot.HEIGHT - plot.TOP - plot.BOTTOM)  # half of two decimals
        assert np.abs(np.log10(low) + up * span - np.log10(expected)).max() <= off


def test_changes_that_come_while_it_computes_are_not_lost(shown: Any) -> None:
    shown.get_by_role("combobox", name="step size").select_option("absolute")
    for name in ("absolute η", "condition number κ", "d", "rank r", "initial size α"):
        shown.get_by_role("slider", name=name, exact=True).press("ArrowRight")
    expected = replace(
        Settings(),
        fraction=None,
        learning_rate=0.2,
        condition_number=6.0,
        d=51,
        rank=5,
        init_std=0.02,
    )
    code = script(model.run(expected))
    shown.wait_for_function(
        "code => document.querySelector('#lab-code').textContent.trim() === code.trim()", arg=code
    )


def test_what_cannot_be_is_a_sentence(shown: Any) -> None:
    move(shown, "k", "Home")
    told = shown.locator(".lab-refusal").inner_text()
    assert told.startswith("rank must satisfy 1 <= rank <= min(d, k)")
    assert "Traceback" not in shown.inner_text("body")


def test_divergence_is_a_status(shown: Any) -> None:
    shown.get_by_role("combobox", name="step size").select_option("absolute")
    slider = shown.get_by_role("slider", name="absolute η", exact=True)
    slider.press("End")
    shown.wait_for_selector("td:has-text('lower the learning rate')")
    assert "failed" in shown.locator(".lab-key").inner_text()


def test_another_model(shown: Any) -> None:
    shown.get_by_role("combobox", name="model").select_option("relu")
    shown.wait_for_selector("th:has-text('lora-one-preconditioned')")
    shown.wait_for_selector('path[data-line^="envelope"]')
    assert shown.get_by_role("slider", name="relative shift c").count() == 1


def test_controls_stand_below_each_other(shown: Any) -> None:
    """Stars of a label are stars, and every slider begins where the others do."""
    shown.get_by_role("combobox", name="model").select_option("sensing")
    shown.get_by_role("slider", name="m / r*(d + k − r*)", exact=True).wait_for()
    panel = shown.locator('[data-cell-name="control_panel"]')
    tracks = panel.locator("marimo-slider [data-orientation=horizontal]:has([role=slider])")
    starts = {box["x"] for box in (one.bounding_box() for one in tracks.all()) if box}
    assert tracks.count() > 9
    assert max(starts) - min(starts) < 1.0, starts


def test_the_keyboard_is_enough(shown: Any) -> None:
    """Tab alone leads from the first control to the button that copies, which Enter presses."""
    shown.get_by_role("combobox", name="model").focus()
    seen: list[str] = []
    focused = (
        "() => {let e = document.activeElement; while (e.shadowRoot && e.shadowRoot.activeElement)"
        " e = e.shadowRoot.activeElement; return e.id || e.role || e.getAttribute('role') ||"
        " e.tagName.toLowerCase()}"
    )
    for _ in range(60):
        shown.keyboard.press("Tab")
        seen.append(shown.evaluate(focused))
        if seen[-1] == "lab-copy":
            break
    assert seen[-1] == "lab-copy", seen
    sliders = shown.get_by_role("slider").count()
    assert seen.count("slider") == sliders
    shown.keyboard.press("Enter")
    shown.wait_for_function("document.querySelector('#lab-copied').textContent === 'copied'")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: str(size[0]))
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_everyone_can_use_it(
    chromium: Any, server: Server, dark: bool, size: tuple[int, int]
) -> None:
    with page(chromium, dark=dark, size=size) as opened:
        ready(opened, server)
        assert inaccessible(opened) == []
        # Nothing but the curves and the script scrolls sideways.
        assert opened.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_no_request_leaves_the_machine(shown: Any, server: Server) -> None:
    move(shown, "rank r", "ArrowRight")
    assert len(shown.asked) > 1
    assert abroad(shown.asked) == []
    assert not server.log.exists(), server.log.read_text()

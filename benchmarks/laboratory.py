"""How long after a key on a slider the curves of `loraone explore` are others, in the browser.

Starts the command, sets d = k = 100 in the linear model (400 steps), moves some sliders to one new
value after the other and reports the median and the largest time until the figure has changed.
Nothing is asserted; the load of the machine is printed beside the numbers. Needs the extras explore
and test, and Chromium on the path.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from playwright.sync_api import sync_playwright

# Slider -> the key that leads away from the nearer of its ends.
SLIDERS = {
    "η / best η": "ArrowRight",
    "condition number κ": "ArrowRight",
    "samples N / d": "ArrowLeft",
    "label noise σ": "ArrowRight",
    "rank r": "ArrowRight",
}
BACK = {"ArrowLeft": "ArrowRight", "ArrowRight": "ArrowLeft"}
ADDRESS = re.compile(r"http://[\w.]+:(\d+)\S*access_token=(\S+)")
# From the key to the frame in which the figure is another.
WATCH = """() => {
  window.changed = null;
  const shown = () => document.querySelector('.lab-figure, .lab-refusal').innerHTML;
  const before = shown();
  addEventListener('keydown', (event) => {
    const look = () => shown() !== before
      ? (window.changed = performance.now() - event.timeStamp)
      : requestAnimationFrame(look);
    look();
  }, {once: true, capture: true});
}"""


def press(page: Any, slider: str, key: str) -> float:
    """Milliseconds from the key to the changed figure; then the runs come to their end."""
    thumb = page.get_by_role("slider", name=slider, exact=True)
    thumb.focus()
    page.evaluate(WATCH)
    page.keyboard.press(key)
    page.wait_for_function("window.changed !== null")
    page.wait_for_timeout(800)
    return float(page.evaluate("window.changed"))


def opened(play: Any, process: subprocess.Popen[str], size: int) -> Any:
    """The page, with d = k = size."""
    assert process.stdout is not None
    found = next(m for line in process.stdout if (m := ADDRESS.search(line)))
    plain = f"http://127.0.0.1:{found[1]}/"
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{plain}health").close()
            break
        except urllib.error.URLError:
            time.sleep(0.05)
    path = next(
        p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))
    )
    page = play.chromium.launch(executable_path=path, args=["--no-sandbox"]).new_page()
    page.set_default_timeout(120_000)
    page.goto(f"{plain}?access_token={found[2]}")
    page.wait_for_selector("#lab-code")
    for name in ("d", "k"):
        page.get_by_role("slider", name=name, exact=True).press("End")
    page.wait_for_function(f"document.querySelector('#lab-code').textContent.includes('k={size},')")
    return page


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="keys on each slider")
    repeats = parser.parse_args().repeats
    process = subprocess.Popen(
        [sys.executable, "-m", "loraone_theory", "explore", "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        with sync_playwright() as play:
            page = opened(play, process, 100)
            for slider, key in SLIDERS.items():
                # Every value is a new one, of which nothing is known from before.
                times = [press(page, slider, key) for _ in range(repeats)]
                for _ in range(repeats):
                    press(page, slider, BACK[key])
                print(
                    f"{slider:20} median {statistics.median(times):6.0f} ms, "
                    f"largest {max(times):6.0f} ms, load {os.getloadavg()[0]:.1f} "
                    f"on {os.cpu_count()} cores",
                    flush=True,
                )
    finally:
        process.terminate()
        process.communicate(timeout=60)


if __name__ == "__main__":
    main()

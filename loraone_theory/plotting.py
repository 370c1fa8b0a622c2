"""How figures look and how they are saved; the only file that imports matplotlib.

It does so when something is first drawn: importing it takes longer than all of this package.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loraone_theory.storage import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = [
    "MARKERS",
    "THEORY",
    "WIDTH",
    "Axes",
    "Figure",
    "band",
    "figure",
    "key",
    "label_panels",
    "log_time",
    "method_style",
    "power_of_ten",
    "save",
    "sequence",
    "spread",
    "style",
    "thinned",
    "write",
]

# Inches. Text of 9 points at this width is still 5 points in a column of 3.25 inches.
WIDTH = 5.8
# Predictions are drawn in this grey, measurements in colour.
THEORY = "#444444"
# One for each curve of a panel, in this order.
MARKERS = "osD^vPX*"

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "mathtext.fontset": "dejavusans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.2,
    "legend.borderaxespad": 0.3,
    "pdf.fonttype": 42,  # TrueType: text stays text
    "svg.fonttype": "none",
    "savefig.dpi": 200,
}

# Okabe and Ito's palette, safe for the common colour vision deficiencies; methods of a family
# share a colour and differ in their dashes.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#7F7F7F"
YELLOW = "#B8A800"  # theirs, darker: #F0E442 does not show on white
SOLID, DASHDOT, SHORT = "-", (0, (5, 1.5, 1, 1.5)), (0, (2.5, 1))
LONG, DOTTED = (0, (7, 1.5)), (0, (1, 2))

METHOD_STYLES: dict[str, tuple[str, str, Any]] = {
    "full": ("Full fine-tuning", BLACK, SOLID),
    "lora": ("LoRA", VERMILLION, SOLID),
    "flow": ("LoRA, gradient flow", VERMILLION, (0, (1, 1))),
    "lora+": ("LoRA+", VERMILLION, DASHDOT),
    "p-lora": ("P-LoRA", VERMILLION, SHORT),
    "p-lora-alternating": ("P-LoRA, alternating", VERMILLION, LONG),
    "lora-spectral-scaled": ("LoRA, spectrally scaled", VERMILLION, (0, (4, 1, 1, 1, 1, 1))),
    "nystrom": ("Nyström", VERMILLION, DOTTED),
    "muon": ("Muon", YELLOW, SOLID),
    "lora-muon": ("LoRA-Muon", YELLOW, DASHDOT),
    "lora-rite": ("LoRA-RITE", YELLOW, SHORT),
    "rslora": ("rsLoRA", ORANGE, SHORT),
    "lora-pro": ("LoRA-Pro", ORANGE, SOLID),
    "adalora": ("AdaLoRA", ORANGE, DASHDOT),
    "lora-one": ("LoRA-One", BLUE, SOLID),
    "lora-one-preconditioned": ("LoRA-One, preconditioned", SKY, SOLID),
    "lora-one-released": ("LoRA-One, released", BLUE, DASHDOT),
    "lora-one-early": ("LoRA-One, early", BLUE, SHORT),
    "lora-one-whitened": ("LoRA-One, whitened", SKY, SHORT),
    "lora-ga": ("LoRA-GA", GREEN, SOLID),
    "lora-sb": ("LoRA-SB", PURPLE, SOLID),
    "lora-xs": ("LoRA-XS", PURPLE, DASHDOT),
    "pissa": ("PiSSA", GREY, SOLID),
    "milora": ("MiLoRA", GREY, DASHDOT),
    "olora": ("OLoRA", GREY, SHORT),
}


def _matplotlib(module: str = "") -> Any:
    return importlib.import_module(f"matplotlib.{module}" if module else "matplotlib")


def __getattr__(name: str) -> Any:  # the types of what is drawn
    if name == "Figure":
        return _matplotlib("figure").Figure
    if name == "Axes":
        return _matplotlib("axes").Axes
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# The same method under another optimiser: its line with markers.
OPTIMISERS = {
    "-scaled-adamw": ("scaled AdamW", "s"),
    "-adamw": ("AdamW", "o"),
    "-momentum": ("momentum", "^"),
    "-flow": ("gradient flow", "D"),
}


def method_style(name: str, **changes: Any) -> dict[str, Any]:
    """Keyword arguments of a line for the method `name`: its label, colour, dashes and markers.

    >>> method_style("lora-one-adamw", linewidth=1)["label"]
    'LoRA-One, AdamW'
    """
    for ending, (optimiser, marker) in OPTIMISERS.items():
        if name not in METHOD_STYLES and name.endswith(ending):
            found = method_style(name.removesuffix(ending))
            found |= {"label": f"{found['label']}, {optimiser}", "marker": marker}
            return {**found, "markevery": 0.1, **changes}
    label, colour, dashes = METHOD_STYLES.get(name, (name, GREY, SOLID))
    return {"label": label, "color": colour, "linestyle": dashes, **changes}


def sequence(count: int) -> list[Any]:
    """`count` ordered colours, dark to light, of equal steps in lightness also in grey."""
    map_of = _matplotlib().colormaps["viridis"]
    return [map_of(x) for x in np.linspace(0.0, 0.88, max(count, 2))][:count]


@contextmanager
def style() -> Iterator[None]:
    """The block draws and saves with this library's settings; the caller's come back after."""
    with _matplotlib().rc_context(STYLE):
        yield


def figure(
    rows: int = 1, columns: int = 1, *, height: float, width: float = WIDTH, **layout: Any
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes, an array of shape (rows, columns); sizes in inches."""
    made = _matplotlib("figure").Figure(figsize=(width, height), layout="constrained")
    _matplotlib("backends.backend_agg").FigureCanvasAgg(made)
    return made, made.subplots(rows, columns, squeeze=False, **layout)


def band(axes: Axes, t: np.ndarray, values: np.ndarray, **line: Any) -> None:
    """Mean over the last axis of `values` (T, runs) as a line, 10th to 90th percentile shaded.

    Only steps at which every run has a value are drawn.
    """
    whole = np.isfinite(values).all(-1)
    t, values = t[whole], values[whole]
    low, high = np.quantile(values, [0.1, 0.9], axis=-1)
    axes.plot(t, values.mean(-1), **line)
    axes.fill_between(t, low, high, color=line.get("color"), alpha=0.18, linewidth=0)


def spread(axes: Axes, x: np.ndarray, values: np.ndarray, **line: Any) -> None:
    """Mean over the last axis of `values` (n, runs) as points, 10th to 90th percentile as bars."""
    whole = np.isfinite(values).all(-1)
    x, values = x[whole], values[whole]
    mean = values.mean(-1)
    low, high = np.quantile(values, [0.1, 0.9], axis=-1) if len(x) else (mean, mean)
    bars = np.clip([mean - low, high - mean], 0, None)
    axes.errorbar(x, mean, yerr=bars, capsize=2, elinewidth=0.8, **line)


def key(label: str, **line: Any) -> Line2D:
    """A legend entry of its own."""
    return _matplotlib("lines").Line2D([], [], label=label, **line)


def edges(centres: np.ndarray) -> np.ndarray:
    """The n + 1 borders of cells around n sorted centres; those of one are ½ away.

    >>> edges(np.array([1.0, 2.0, 4.0]))
    array([0.5, 1.5, 3. , 5. ])
    """
    if len(centres) == 1:
        return centres[0] + np.array([-0.5, 0.5])
    inner = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - inner[0]], inner, [2 * centres[-1] - inner[-1]]])


def round_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from low to high, at most about + 1 of them.

    >>> round_ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12 - math.floor(math.log10(step))) for k in range(first, last + 1)]


def thinned(count: int, kept: int = 200) -> np.ndarray:
    """At most about `kept` of the indices 0 … count − 1, evenly spaced in their logarithm.

    >>> thinned(1000, 7)
    array([  0,   1,   2,   9,  31,  99, 315, 999])
    """
    spaced = np.geomspace(1, max(count, 2), kept).round().astype(int) - 1
    return np.unique(np.append([0, 1], spaced).clip(0, count - 1))


def log_time(axes: Axes) -> None:
    """A logarithmic axis of steps that has room for t = 0."""
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    axes.set(xlabel="step $t$", xlim=(0, None))


def power_of_ten(value: float) -> str:
    """Math text of the nearest power of ten.

    >>> power_of_ten(1e-3)
    '10^{-3}'
    """
    exponent = round(math.log10(value))
    return "1" if exponent == 0 else f"10^{{{exponent}}}"


def label_panels(axes: Sequence[Axes], titles: Sequence[str]) -> None:
    """Titles (a), (b), …, flush left."""
    for letter, ax, title in zip("abcdefgh", axes, titles, strict=False):
        ax.set_title(f"({letter}) {title}", loc="left")


def write(figure: Figure, path: str | Path) -> None:
    """Write a figure to `path`, png or pdf by its suffix, whole or not at all."""
    path = Path(path)
    stamps = {".pdf": {"CreationDate": None}, ".png": {"Software": None}}
    if path.suffix not in stamps:
        raise ValueError(f"a figure's file must end in .png or .pdf; got {path.name!r}")
    with whole_file(path) as temporary:
        figure.savefig(temporary, metadata=stamps[path.suffix])


def save(figure: Figure, stem: str | Path) -> list[Path]:
    """Write `stem`.png and `stem`.pdf; the same figure gives the same bytes."""
    paths = [Path(f"{stem}{suffix}") for suffix in (".png", ".pdf")]
    for path in paths:
        write(figure, path)
    return paths

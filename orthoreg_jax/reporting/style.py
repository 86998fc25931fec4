"""Style of figures, on paper and on the page.

Each mode has the same colour and marker everywhere. Lines are solid with OrthoReg and dashed
without; markers are hollow without a penalty, full with OrthoReg, and half full with another.
"""

from __future__ import annotations

import io
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from orthoreg_jax.config import split_method

# Each colour for a light and a dark background. The page has them as variables. Figures take the
# first, and the page inverts figures in dark mode. The modes' colours follow Okabe and Ito, with
# enough contrast for text.
PALETTE = {
    "ink": ("#1c2024", "#e6e8ea"),
    "soft": ("#59616a", "#a6aeb6"),
    "line": ("#dfe2e5", "#31373d"),
    "paper": ("#fafaf8", "#15181b"),
    "card": ("#ffffff", "#1d2125"),
    "accent": ("#0a5f9e", "#74bdf0"),
    "full": ("#0072b2", "#56b4e9"),
    "linearized": ("#bb4e00", "#f2924a"),
    "attention": ("#007a5a", "#35c79a"),
    "lora": ("#7d2a6c", "#f7c9e6"),
    "given": ("#3d3900", "#fff3a0"),
    "delta": ("#4434b8", "#8f7bff"),
}
MARKERS = {
    "full": "o",
    "linearized": "s",
    "attention": "^",
    "lora": "D",
    "given": "v",
    "delta": "P",
}
# How a marker is filled, by the last of a method's penalties; and the same signs in text.
FILLS = {"": "none", "orthoreg": "full", "taujp": "left", "tak": "right", "drift": "top"}
SIGNS = {"o": "○●◐◑◓", "s": "□■◧◨⬒", "^": "△▲◭◮▴", "D": "◇◆⬖⬗⬘", "v": "▽▼⧨⧩▾",
         "P": "✛✚✜✢✣"}  # fmt: skip
INK, SOFT, LINE, CARD = (PALETTE[name][0] for name in ("ink", "soft", "line", "card"))
STYLE: Any = {
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "figure.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.facecolor": CARD,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "figure.constrained_layout.h_pad": 0.06,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "figure.facecolor": CARD,
    "savefig.facecolor": CARD,
    # Equal results give equal bytes, and text stays text.
    "svg.hashsalt": "orthoreg",
    "svg.fonttype": "none",
}
styled = matplotlib.rc_context(STYLE)  # a decorator of functions that draw or save


def method_mode(method: str) -> str:
    """The mode that gives a method its colour and marker; unknown modes get a fixed one."""
    mode = split_method(method)[0]
    return mode if mode in MARKERS else list(MARKERS)[sum(mode.encode()) % len(MARKERS)]


def method_sign(method: str) -> str:
    """A method's marker as a character."""
    fill = list(FILLS).index(_last_penalty(method))
    return SIGNS[MARKERS[method_mode(method)]][fill]


def method_look(method: str) -> dict[str, Any]:
    """Colour, marker and dashes of a method's lines, as matplotlib's options."""
    mode, penalty = method_mode(method), _last_penalty(method)
    colour = PALETTE[mode][0]
    return {
        "color": colour,
        "marker": MARKERS[mode],
        "markerfacecolor": colour if penalty else CARD,
        "markerfacecoloralt": CARD,
        "fillstyle": FILLS[penalty] if penalty else "full",
        "linestyle": "-" if "orthoreg" in split_method(method)[1] else (0, (3.5, 1.5)),
    }


def _last_penalty(method: str) -> str:
    return ("", *split_method(method)[1])[-1]


def _lay_out(figure: Figure) -> None:
    """Lays out the figure once; matplotlib would do it twice in each call of `savefig`."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)
        figure.set_layout_engine(None)


@styled
def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    _lay_out(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


@styled
def to_svg(figure: Figure) -> str:
    """The figure as an SVG file, without a date, so that equal results give equal files."""
    _lay_out(figure)
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    return buffer.getvalue()

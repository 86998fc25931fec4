"""How figures look, on paper and on the page.

A mode has one colour and one marker everywhere. With OrthoReg lines are solid, without it dashed;
markers are hollow without a penalty, full with OrthoReg, and half full with another.
"""

from __future__ import annotations

import io
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from orthoreg_jax.config import split_method

# Each colour on light and on dark ground. The page has them as variables; figures take the first,
# and the page inverts them in the dark. Modes: after Okabe and Ito, as dark or light as text needs.
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
    "given": ("#6b5a00", "#dcc75a"),
}
MARKERS = {"full": "o", "linearized": "s", "attention": "^", "lora": "D", "given": "v"}
# How a marker is filled, by the last of a method's penalties; and the same signs in text.
FILLS = {"": "none", "orthoreg": "full", "taujp": "left", "tak": "right", "drift": "top"}
SIGNS = {"o": "○●◐◑◓", "s": "□■◧◨⬒", "^": "△▲◭◮▴", "D": "◇◆⬖⬗⬘", "v": "▽▼⧨⧩▾"}
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
    # The same results give the same bytes; letters stay letters.
    "svg.hashsalt": "orthoreg",
    "svg.fonttype": "none",
}
styled = matplotlib.rc_context(STYLE)  # a decorator of functions that draw or save


def method_mode(method: str) -> str:
    """The mode whose colour and marker a method has; unknown ones get a fixed one of them."""
    mode = split_method(method)[0]
    return mode if mode in MARKERS else list(MARKERS)[sum(mode.encode()) % len(MARKERS)]


def method_sign(method: str) -> str:
    """The marker of a method as a letter."""
    fill = list(FILLS).index(_last_penalty(method))
    return SIGNS[MARKERS[method_mode(method)]][fill]


def method_look(method: str) -> dict[str, Any]:
    """Colour, marker and dashes of a method's lines, as matplotlib has them."""
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
    """Makes room for all texts, once: matplotlib would do it twice in each call of `savefig`."""
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
    """The figure as an SVG file, without date, so that equal results give equal files."""
    _lay_out(figure)
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    return buffer.getvalue()

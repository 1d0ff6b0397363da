"""Figures in one style: legible in print and for colour-blind readers."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib import pyplot as plt

__all__ = ["COLOURS", "set_style"]

# Okabe & Ito's palette: distinguishable with every common form of colour blindness, and in grey.
COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "grey": "#6B6B6B",
}


def set_style() -> None:
    """Set matplotlib's defaults to the style of the companion."""
    mpl.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 110,
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 10.5,
            "axes.labelsize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": plt.cycler(color=list(COLOURS.values())),
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "image.cmap": "viridis",
        }
    )

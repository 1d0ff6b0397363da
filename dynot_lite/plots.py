"""Figures in one style: legible in print and for colour-blind readers."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

__all__ = ["COLOURS", "draw_trajectories", "image_grid", "rendered", "set_style", "write_gif"]

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


def image_grid(images, *, columns: int, gap: int = 1) -> np.ndarray:
    """Square images side by side, row by row, as one picture of shape (height, width); the gaps and missing images are NaN.

    Args:
        images: shape (n, side²) or (n, side, side).
        columns: images per row.
        gap: pixels between images.

    >>> image_grid([[1, 2, 3, 4], [5, 6, 7, 8]], columns=2)
    array([[ 1.,  2., nan,  5.,  6.],
           [ 3.,  4., nan,  7.,  8.]])
    """
    images = np.asarray(images, dtype=float)
    side = round(images[0].size ** 0.5)
    rows = -(-len(images) // columns)
    canvas = np.full((rows, columns, side + gap, side + gap), np.nan)
    canvas.reshape(-1, side + gap, side + gap)[: len(images), :side, :side] = images.reshape(-1, side, side)
    picture = canvas.transpose(0, 2, 1, 3).reshape(rows * (side + gap), columns * (side + gap))
    return picture[: picture.shape[0] - gap, : picture.shape[1] - gap]


def draw_trajectories(ax: Axes, positions, *, colour: str = COLOURS["grey"], count: int = 60) -> None:
    """The first ``count`` trajectories of ``positions``, shape (k + 1, n, 2), in the plane: thin lines, the ends as dots."""
    positions = np.asarray(positions)[:, :count]
    ax.plot(*positions.transpose(2, 0, 1), color=colour, linewidth=0.6, alpha=0.7)
    ax.scatter(*positions[-1].T, s=6, color=colour, zorder=3)


def rendered(figure: Figure) -> Image.Image:
    """The figure as a picture, for a frame of an animation; the figure is closed."""
    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
    plt.close(figure)
    return picture


def write_gif(path: Path, frames: Sequence[Image.Image], *, milliseconds: int = 60, pause: int = 1200) -> None:
    """Write frames of one size as an animation that repeats for ever and rests ``pause`` milliseconds on the last frame."""
    # One palette for all, from the first and the last frame: colours that change from frame to frame would flicker.
    both = Image.new("RGB", (frames[0].width, 2 * frames[0].height))
    both.paste(frames[0], (0, 0))
    both.paste(frames[-1], (0, frames[0].height))
    palette = both.quantize(64)
    first, *rest = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    durations = [milliseconds] * len(rest) + [pause]
    first.save(path, save_all=True, append_images=rest, duration=durations, loop=0, optimize=True)

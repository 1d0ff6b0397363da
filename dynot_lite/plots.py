"""Figures in one style: legible in print and for colour-blind readers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

__all__ = [
    "COLOURS",
    "ROLES",
    "against_evaluations",
    "against_steps",
    "bars",
    "draw_cells",
    "draw_density",
    "draw_ellipse",
    "draw_field",
    "draw_pairs",
    "draw_trajectories",
    "image_grid",
    "image_row",
    "rendered",
    "set_style",
    "strip",
    "write_gif",
    "write_images",
]

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

# A colour means one thing in all stories.
ROLES = {
    "optimal": COLOURS["green"],
    "independent": COLOURS["blue"],
    "minibatch": COLOURS["orange"],
    "wrong": COLOURS["vermilion"],
    "truth": COLOURS["grey"],
    "source": COLOURS["grey"],
    "target": COLOURS["sky"],
    "first": COLOURS["purple"],
    "second": "#000000",
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
    """Images side by side, row by row, as one picture (height, width), or (height, width, 3) in colours.

    The gaps and missing images are NaN.

    Args:
        images: shape (n, h, w), (n, 1, h, w) or, in colours, (n, 3, h, w); or (n, side²), square ones in a row.
        columns: images per row.
        gap: pixels between images.

    >>> image_grid([[1, 2, 3, 4], [5, 6, 7, 8]], columns=2)
    array([[ 1.,  2., nan,  5.,  6.],
           [ 3.,  4., nan,  7.,  8.]])
    """
    images = np.asarray(images.detach().cpu() if isinstance(images, torch.Tensor) else images, dtype=float)
    if images.ndim == 2:
        images = images.reshape(len(images), 1, round(images.shape[1] ** 0.5), -1)
    images = images[:, None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must have shape (n, h, w), (n, 1, h, w) or (n, 3, h, w), got {images.shape}")
    n, colours, height, width = images.shape
    rows = -(-n // columns)
    canvas = np.full((rows * columns, height + gap, width + gap, colours), np.nan)
    canvas[:n, :height, :width] = images.transpose(0, 2, 3, 1)
    canvas = canvas.reshape(rows, columns, height + gap, width + gap, colours).swapaxes(1, 2)
    picture = canvas.reshape(rows * (height + gap), columns * (width + gap), colours)
    picture = picture[: len(picture) - gap, : picture.shape[1] - gap]
    return picture if colours == 3 else picture[..., 0]


def write_images(path: str | Path, images, *, columns: int, enlarge: int = 2) -> None:
    """Write images with values in [0, 1], which others are cut to, side by side into a picture file, such as a PNG.

    Args:
        images, columns: as of :func:`image_grid`.
        enlarge: pixels of the file, in each direction, for one of an image.
    """
    picture = np.nan_to_num(image_grid(images, columns=columns), nan=0.5).clip(0, 1)
    picture = (255 * picture + 0.5).astype(np.uint8)
    Image.fromarray(picture.repeat(enlarge, 0).repeat(enlarge, 1)).save(path)


def draw_trajectories(ax: Axes, positions, *, colour: str = COLOURS["grey"], count: int = 60) -> None:
    """The first ``count`` trajectories of ``positions``, shape (k + 1, n, 2), in the plane: thin lines, the ends as dots."""
    positions = np.asarray(positions)[:, :count]
    ax.plot(*positions.transpose(2, 0, 1), color=colour, linewidth=0.6, alpha=0.7)
    ax.scatter(*positions[-1].T, s=6, color=colour, zorder=3)


def draw_field(ax: Axes, velocity: Callable, t: float, box: Sequence[float], *, n: int = 13, role: str = "truth") -> None:
    """Arrows of ``velocity(t, x)`` on an n × n grid of the box (left, right, bottom, top), the longest one cell long."""
    left, right, bottom, top = box
    x, y = torch.linspace(left, right, n + 2)[1:-1], torch.linspace(bottom, top, n + 2)[1:-1]
    points = torch.cartesian_prod(x, y).double()
    with torch.no_grad():
        arrows = torch.as_tensor(velocity(t, points)).double()
    cell, longest = min(right - left, top - bottom) / (n + 1), arrows.norm(dim=1).max().item() or 1.0
    options = {"angles": "xy", "scale_units": "xy", "scale": longest / cell, "width": 0.004, "pivot": "middle"}
    ax.quiver(*points.T, *arrows.T, color=ROLES[role], **options)
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")


def draw_density(ax: Axes, log_prob: Callable, box: Sequence[float], *, n: int = 121, role: str = "truth") -> None:
    """Six level lines of the density exp(log_prob(x)) on the box (left, right, bottom, top), at even shares of its maximum."""
    left, right, bottom, top = box
    x, y = torch.linspace(left, right, n).double(), torch.linspace(bottom, top, n).double()
    with torch.no_grad():
        values = torch.as_tensor(log_prob(torch.cartesian_prod(x, y))).double().exp().reshape(n, n)
    levels = values.max().item() * np.linspace(0.08, 0.95, 6)
    ax.contour(x, y, values.T, levels=levels, colors=ROLES[role], linewidths=0.9)
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")


def draw_ellipse(ax: Axes, mean, cov, *, role: str, deviations: float = 2.0, label: str | None = None) -> None:
    """The points at so many standard deviations from the mean of a Gaussian in the plane."""
    angle = np.linspace(0, 2 * np.pi, 121)
    values, vectors = np.linalg.eigh(np.asarray(cov))
    circle = np.stack([np.cos(angle), np.sin(angle)])
    curve = np.asarray(mean)[:, None] + deviations * vectors @ (np.sqrt(values.clip(0))[:, None] * circle)
    ax.plot(*curve, color=ROLES[role], label=label)


def draw_pairs(ax: Axes, x0, x1, *, role: str = "optimal", size: float = 14) -> None:
    """Pairs x0[i], x1[i] in the plane: circles, squares, and a line between."""
    x0, x1 = np.asarray(x0), np.asarray(x1)
    ax.plot(*np.stack([x0, x1]).transpose(2, 0, 1), color=ROLES[role], linewidth=0.8, alpha=0.8, zorder=1)
    ax.scatter(*x0.T, s=size, color=ROLES["source"], zorder=2)
    ax.scatter(*x1.T, s=size, color=ROLES["target"], marker="s", zorder=2)
    ax.set(aspect="equal")


def draw_cells(ax: Axes, points, potentials, box: Sequence[float], *, n: int = 301, share=None) -> None:
    """The cells {x: c(x, y_j) − g_j is least} of points y_j with potentials g_j, c = ½‖x − y‖², on (left, right, bottom, top).

    Neighbours have other colours, and points those of their cells; with ``share``, the mass of each cell over what it should
    be, white is 1, vermilion too much, blue too little.
    """
    left, right, bottom, top = box
    y, g = np.asarray(points, dtype=float), np.asarray(potentials, dtype=float)
    grid = np.stack(np.meshgrid(np.linspace(left, right, n), np.linspace(bottom, top, n)), -1).reshape(-1, 2)
    cell = (grid @ y.T + (g - 0.5 * (y**2).sum(1))).argmax(1).reshape(n, n)
    if share is None:
        full = mpl.colormaps["tab20"](np.arange(len(y)) * 7 % 20)[:, :3]  # far apart in the order of the points
        colours, marks = full * 0.45 + 0.55, full * 0.85
    else:
        way = np.clip(np.log2(np.asarray(share, dtype=float).clip(1e-3)), -1, 1)[:, None]
        high, low = (np.array(mpl.colors.to_rgb(COLOURS[name])) for name in ("vermilion", "blue"))
        colours, marks = 1 + np.abs(way) * (np.where(way > 0, high, low) - 1), ROLES["target"]
    ax.imshow(colours[cell], extent=(left, right, bottom, top), origin="lower", interpolation="nearest")
    ax.scatter(*y.T, s=10 if share is not None else 24, c=marks, marker="s", edgecolors="black", linewidths=0.4, zorder=2)
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")


def image_row(images: Mapping[str, Any], *, height: float = 2.0, cmap: str | None = None) -> Figure:
    """A figure of pictures side by side, by their titles: arrays (h, w) or (h, w, 3); values in colours are cut to [0, 1]."""
    arrays = {title: np.asarray(image, dtype=float) for title, image in images.items()}
    widths = [height * array.shape[1] / array.shape[0] for array in arrays.values()]
    figure, axes = plt.subplots(1, len(arrays), figsize=(sum(widths), height + 0.35), squeeze=False, width_ratios=widths)
    for ax, (title, array) in zip(axes[0], arrays.items(), strict=True):
        ax.imshow(array.clip(0, 1) if array.ndim == 3 else array, cmap=cmap)
        ax.set(title=title, xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return figure


def strip(frames, times=None, *, count: int = 6, cmap: str = "Blues", mask=None, height: float = 1.8) -> Figure:
    """A figure of ``count`` pictures of a film, evenly spaced with both ends; one scale of colours, from 0 to the largest value.

    Args:
        frames: shape (k, h, w), row 0 on top, or (k, h, w, 3) in colours, whose values are cut to [0, 1].
        times: k times, for the titles; None for equal ones from 0 to 1.
        mask: boolean, shape (h, w): cells that are drawn grey, such as walls.
    """
    frames = np.asarray(frames, dtype=float)
    times = np.linspace(0, 1, len(frames)) if times is None else np.asarray(times)
    if frames.ndim not in (3, 4) or len(times) != len(frames) or not 1 <= count <= len(frames):
        raise ValueError(f"frames, times and count must fit, got {frames.shape}, {len(times)} times and count {count}")
    width = height * frames.shape[2] / frames.shape[1]
    figure, axes = plt.subplots(1, count, figsize=(count * width, height + 0.35), squeeze=False)
    for ax, k in zip(axes[0], np.linspace(0, len(frames) - 1, count).round().astype(int), strict=True):
        ax.imshow(frames[k].clip(0, 1) if frames.ndim == 4 else frames[k], cmap=cmap, vmin=0, vmax=frames.max())
        if mask is not None:
            ax.imshow(np.where(np.asarray(mask)[..., None], mpl.colors.to_rgba(ROLES["truth"]), 0.0))
        ax.set(title=f"t = {times[k]:.2f}", xticks=[], yticks=[])
        ax.spines[:].set_visible(mask is not None)
    return figure


def bars(
    ax: Axes, rows: Mapping[str, Any], roles: Sequence[str] | Mapping[str, str] | str, *, start: float = 0.0, digits: str = ".3g"
) -> None:
    """One horizontal bar per row, from top to bottom, from ``start`` to its value, which is written at its end.

    Args:
        rows: {label: value}; or {label: values}, the parts of a bar, which begin where the one before ends, and whose sum is
            written.
        roles: one of all rows, or one for each; of parts {name: role}, with a legend above.
        start: where bars begin: 1 for ratios, on a logarithmic axis. With parts it must be 0.
        digits: the format of the numbers; empty for none.
    """
    parts = np.array([np.atleast_1d(np.asarray(value, dtype=float)) for value in rows.values()])
    names = list(roles) if isinstance(roles, Mapping) else [None]
    colours = [ROLES[role] for role in ([roles] if isinstance(roles, str) else roles.values() if names[0] else roles)]
    if parts.ndim != 2 or parts.shape[1] != len(names) or (names == [None] and len(colours) not in (1, len(rows))):
        raise ValueError(f"roles must be one for each row or part, got {len(colours)} for {len(rows)} rows, parts {parts.shape}")
    if start and names[0]:
        raise ValueError(f"start must be 0 where bars have parts, got {start!r}")
    ends = start + np.cumsum(parts, 1) - start * (names == [None])
    for k, name in enumerate(names):
        low = ends[:, k - 1] if k else start
        ax.barh(list(rows), ends[:, k] - low, left=low, color=colours[k] if name else colours, label=name)
    for row, end in enumerate(ends[:, -1]) if digits else ():
        right = bool(end >= start)
        ax.annotate(format(end, digits), (end, row), (4 if right else -4, 0), textcoords="offset points", va="center",
                    ha="left" if right else "right", fontsize=9)  # fmt: skip
    ax.margins(x=0.15)
    ax.invert_yaxis()
    if names[0]:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(names))


def against_evaluations(
    ax: Axes, curves: Mapping[str, Mapping[int, Any]], roles: Mapping[str, str], *, floor: float | None = None
) -> None:
    """How good samples are against the number of evaluations of the network, on logarithmic axes; less is better.

    Args:
        curves: {label: {evaluations: distance}}, positive; of several runs {evaluations: distances}: their mean, and their range.
        roles: {label: role}.
        floor: what two samples of the target have, a dashed line.
    """
    ticks = sorted({k for curve in curves.values() for k in curve})
    for label, curve in curves.items():
        runs = [np.atleast_1d(np.asarray(curve[k], dtype=float)) for k in sorted(curve)]
        if any((values <= 0).any() for values in runs):
            raise ValueError(f"curves must be positive, got {label!r} with a value that is not")
        colour = ROLES[roles[label]]
        ax.plot(sorted(curve), [values.mean() for values in runs], "o-", markersize=4, color=colour, label=label)
        if any(len(values) > 1 for values in runs):
            low, high = zip(*((values.min(), values.max()) for values in runs), strict=True)
            ax.fill_between(sorted(curve), low, high, color=colour, alpha=0.2, linewidth=0)
    if floor is not None:
        ax.axhline(floor, color=ROLES["truth"], linestyle="--", linewidth=1, label="two samples of the target")
    ax.set(xlabel="evaluations of the network", xscale="log", yscale="log")
    ax.set_xticks(ticks, [f"{k:g}" for k in ticks])
    ax.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    _plain_logarithms(ax)
    ax.legend()


def against_steps(ax: Axes, losses, *, role: str = "optimal", means: int = 200) -> None:
    """The loss of training, a positive number a step, on a logarithmic axis: at most ``means`` means of as many steps each."""
    losses = np.asarray(losses, dtype=float)
    length = -(-len(losses) // means)
    values = losses[: len(losses) // length * length].reshape(-1, length).mean(1)
    ax.plot(length * np.arange(1, len(values) + 1), values, color=ROLES[role])
    ax.set(xlabel="step", yscale="log")
    _plain_logarithms(ax)


def _plain_logarithms(ax: Axes) -> None:
    """Numbers as they are written, not as powers, on a logarithmic vertical axis."""
    ax.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_locator(mpl.ticker.NullLocator())
    ax.yaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:g}"))


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

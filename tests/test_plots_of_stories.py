"""What the drawing functions of the stories put on paper, read back from the axes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib import colors
from matplotlib import pyplot as plt

from dynot_lite import plots
from dynot_lite.laws.gaussian import Gaussian


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


BOX = (-2, 2, -1, 3)


def test_every_role_has_a_colour_that_differs_from_wrong():
    assert all(colors.is_color_like(colour) for colour in plots.ROLES.values())
    assert [role for role, colour in plots.ROLES.items() if colour == plots.ROLES["wrong"]] == ["wrong"]


def test_a_field_is_drawn_where_it_is_evaluated_and_no_arrow_leaves_its_cell(ax):
    plots.draw_field(ax, lambda t, x: t * torch.stack([-x[:, 1], x[:, 0]], 1), 0.5, BOX, n=7)
    (arrows,) = ax.collections
    places = np.stack([arrows.X, arrows.Y], 1)
    values = np.stack([arrows.U, arrows.V], 1)
    assert len(places) == 49 and np.allclose(values, 0.5 * np.stack([-places[:, 1], places[:, 0]], 1))
    assert np.isclose(np.linalg.norm(values, axis=1).max() / arrows.scale, 4 / 8) and arrows.angles == "xy"
    assert ax.get_xlim() == (-2, 2) and ax.get_ylim() == (-1, 3)


def test_level_lines_and_ellipse_of_a_gaussian_have_its_shape(ax):
    law = Gaussian([0.5, 1.0], [[0.3, 0.1], [0.1, 0.2]])
    plots.draw_density(ax, law.log_prob, BOX, role="target")
    (lines,) = ax.collections
    curve = torch.from_numpy(max(lines.get_paths(), key=lambda path: len(path.vertices)).vertices)
    heights = law.log_prob(curve).exp()
    assert len(lines.levels) == 6 and (heights / heights.mean() - 1).abs().max() < 0.05  # x and y are not exchanged
    plots.draw_ellipse(ax, law.mean, law.cov, role="target", deviations=2)
    ellipse = torch.from_numpy(ax.lines[-1].get_xydata()) - law.mean
    assert torch.allclose((ellipse @ torch.linalg.inv(law.cov) * ellipse).sum(1), torch.tensor(4.0, dtype=torch.float64))


def test_pairs_are_joined(ax):
    x0, x1 = np.arange(6.0).reshape(3, 2), 10 + np.arange(6.0).reshape(3, 2)
    plots.draw_pairs(ax, x0, x1)
    assert [line.get_xydata().tolist() for line in ax.lines] == np.stack([x0, x1], 1).tolist()


def test_cells_are_those_of_the_potentials(ax):
    points, potentials = np.array([[-1.0, 1.0], [1.0, 1.0]]), np.array([0.0, 1.0])
    plots.draw_cells(ax, points, potentials, BOX, n=41, share=[0.25, 1.0])
    (picture,) = ax.images
    row = picture.get_array()[20]  # along y = 1 the border is where ½(x + 1)² = ½(x − 1)² − 1, x = −½
    white = np.isclose(row, 1).all(1)
    assert np.linspace(-2, 2, 41)[white].min() == pytest.approx(-0.5, abs=0.11) and white[-1] and not white[0]
    assert row[0][2] > row[0][0]  # too little is blue


def test_pictures_in_a_row_have_their_shapes_and_titles():
    figure = plots.image_row({"wide": np.zeros((4, 8)), "colours": 2 * np.ones((4, 4, 3))})
    assert [axes.get_title() for axes in figure.axes] == ["wide", "colours"]
    assert figure.axes[1].images[0].get_array().max() == 1
    plt.close(figure)


def test_a_strip_shows_frames_of_one_scale_with_both_ends_and_walls():
    frames = np.arange(10.0)[:, None, None] * np.ones((10, 2, 4))
    walls = np.array([[True, False, False, False], [False] * 4])
    figure = plots.strip(frames, count=4, mask=walls)
    assert [axes.get_title() for axes in figure.axes] == ["t = 0.00", "t = 0.33", "t = 0.67", "t = 1.00"]
    for axes, value in zip(figure.axes, (0, 3, 6, 9), strict=True):
        picture, over = axes.images
        assert (picture.get_array() == value).all() and picture.get_clim() == (0, 9)
        assert np.array_equal(over.get_array()[..., 3] > 0, walls)
        assert colors.to_hex(over.get_array()[0, 0]) == plots.ROLES["truth"].lower()
    plt.close(figure)
    figure = plots.strip(np.full((3, 2, 2, 3), 1.5), [0, 0.25, 2], count=3)
    assert [axes.get_title() for axes in figure.axes] == ["t = 0.00", "t = 0.25", "t = 2.00"]
    assert figure.axes[0].images[0].get_array().max() == 1
    plt.close(figure)
    for bad in ({"count": 11}, {"count": 0}, {"times": [0, 1]}):
        with pytest.raises(ValueError, match="frames, times and count"):
            plots.strip(frames, **bad)
    assert not plt.get_fignums()


def ends(ax):
    return [(bar.get_x(), bar.get_x() + bar.get_width(), colors.to_hex(bar.get_facecolor()).upper()) for bar in ax.patches]


def test_bars_stand_in_order_with_their_roles_and_values(ax):
    plots.bars(ax, {"exact": 2.0, "independent": 3.5}, ["optimal", "independent"])
    assert ends(ax) == [(0, 2, plots.ROLES["optimal"]), (0, 3.5, plots.ROLES["independent"])]
    assert [text.get_text() for text in ax.texts] == ["2", "3.5"] and ax.get_legend() is None
    assert [label.get_text() for label in ax.get_yticklabels()] == ["exact", "independent"] and ax.yaxis_inverted()


def test_parts_of_bars_begin_where_the_one_before_ends(ax):
    rows = {"late": (1.0, 0.25, 0.0), "flow": (1.0, 1.5, 0.125)}
    plots.bars(ax, rows, {"W₂²": "truth", "bent": "independent", "partners": "wrong"}, digits=".2f")
    found = ends(ax)
    assert [bar[:2] for bar in found] == [(0, 1), (0, 1), (1, 1.25), (1, 2.5), (1.25, 1.25), (2.5, 2.625)]
    assert [bar[2] for bar in found[::2]] == [plots.ROLES[role] for role in ("truth", "independent", "wrong")]
    assert [text.get_text() for text in ax.texts] == ["1.25", "2.62"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["W₂²", "bent", "partners"]


def test_bars_of_ratios_begin_at_one(ax):
    ax.set_xscale("log")
    plots.bars(ax, {"faster": 8.0, "slower": 0.5}, "optimal", start=1.0)
    assert [bar[:2] for bar in ends(ax)] == [(1, 8), (1, 0.5)]
    assert [(text.get_text(), text.xy[0], text.get_ha()) for text in ax.texts] == [("8", 8, "left"), ("0.5", 0.5, "right")]


@pytest.mark.parametrize(
    ("rows", "roles", "options"),
    [
        ({"a": 1.0, "b": 2.0, "c": 3.0}, ["optimal", "wrong"], {}),
        ({"a": (1.0, 2.0)}, "optimal", {}),
        ({"a": (1.0, 2.0)}, {"one": "optimal"}, {}),
        ({"a": (1.0, 2.0)}, {"one": "optimal", "two": "wrong"}, {"start": 1.0}),
    ],
)
def test_bars_without_a_role_are_refused(ax, rows, roles, options):
    with pytest.raises(ValueError, match=r"(roles|start) must be"):
        plots.bars(ax, rows, roles, **options)


def test_curves_against_evaluations_have_ticks_where_something_was_measured(ax):
    curves = {"exact": {8: 0.5, 2: 0.75}, "independent": {2: [2.0, 3.0], 4: [1.0, 1.5]}}
    plots.against_evaluations(ax, curves, {"exact": "optimal", "independent": "independent"}, floor=0.25)
    exact, independent, floor = ax.lines
    assert exact.get_xydata().tolist() == [[2, 0.75], [8, 0.5]] and exact.get_color() == plots.ROLES["optimal"]
    assert independent.get_xydata().tolist() == [[2, 2.5], [4, 1.25]]
    assert set(floor.get_ydata()) == {0.25}
    corners = ax.collections[0].get_paths()[0].vertices.tolist()
    assert len(ax.collections) == 1 and all(corner in corners for corner in ([2, 2], [2, 3], [4, 1], [4, 1.5]))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2", "4", "8"] and ax.get_yscale() == "log"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["exact", "independent", "two samples of the target"]
    with pytest.raises(ValueError, match="curves must be positive, got 'exact'"):
        plots.against_evaluations(ax, {"exact": {2: 0.0}}, {"exact": "optimal"})

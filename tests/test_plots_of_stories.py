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

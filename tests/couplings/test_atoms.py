"""atoms and indexed: what is merged, which point stands for which atom, and what goes along with the points."""

import pytest
import torch
from clouds import cloud
from instances import generator

from dynot_lite.couplings.atoms import Atoms
from dynot_lite.couplings.indexed import IndexedPairs

POINTS = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
WEIGHTS = torch.tensor([0.125, 0.5, 0.375, 0.0])


def test_copies_are_one_atom_and_points_without_weight_none():
    atoms = Atoms(POINTS, weights=WEIGHTS)
    assert len(atoms) == 2 and sorted(atoms.mass.tolist()) == [0.5, 0.5]
    assert atoms.of_point[0] == atoms.of_point[2] != atoms.of_point[1] and atoms.of_point[3] == -1
    assert torch.allclose(atoms.centred[atoms.of_point[:3]].double() + atoms.mean, POINTS[:3].double())
    values = torch.tensor([10.0, 20.0])
    assert torch.equal(atoms.from_points(atoms.to_points(values)), values)


def test_a_copy_is_chosen_in_proportion_to_its_weight():
    atoms = Atoms(POINTS, weights=WEIGHTS)
    drawn = atoms.member(atoms.of_point[0].expand(8000), generator=generator()).bincount(minlength=4) / 8000
    assert abs(drawn[0] - 0.25) < 4 * (0.1875 / 8000) ** 0.5 and drawn[1] == drawn[3] == 0


def test_the_digest_knows_points_weights_and_not_the_shape_of_images():
    x = cloud(6, 4)
    same = Atoms(x).fingerprint()
    assert Atoms(x.reshape(6, 2, 2)).fingerprint() == same
    assert Atoms(x + 1e-6).fingerprint() != same != Atoms(x, weights=torch.tensor([0.5] + 5 * [0.1])).fingerprint()


class InOrder(IndexedPairs):
    """Noise k goes to point k."""

    def pair_index(self, n, *, generator=None):
        return -self.points[:n], torch.arange(n)


def test_whatever_belongs_to_the_points_goes_along():
    pairs = InOrder(POINTS, torch.arange(4))
    assert [part.tolist() for part in pairs.pair(2)[1:]] == [POINTS[:2].tolist(), [0, 1]]
    x0, x1, own, labels, pictures = pairs.pairs([7, 8, 9, 6], torch.arange(16.0).reshape(4, 2, 2))(3)
    assert torch.equal(x0, -x1) and own.tolist() == [0, 1, 2] and labels.tolist() == [7, 8, 9] and pictures[1, 0, 0] == 4
    with pytest.raises(ValueError, match="one row for each of the 4 points"):
        pairs.pairs([1, 2, 3])

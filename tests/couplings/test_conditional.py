import numpy as np
import pytest
import torch
from clouds import cloud, fitted, unequal
from instances import generator

from dynot_lite.couplings.conditional import ClassCouplings, JointCoupling
from dynot_lite.couplings.exact_flow import ExactFlow
from dynot_lite.couplings.prepared import prepare
from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling


def test_classes():
    points, labels = torch.cat([cloud(40, 2), cloud(20, 2, seed=1) + 4]), torch.tensor([7] * 40 + [-2] * 20)
    couplings = ClassCouplings(points, labels)
    fit = couplings.fit(tol=0.05, generator=generator()).require()
    assert set(fit.results) == {7, -2} and fit is couplings.result
    assert all(fit.results[label] is coupling.result for label, coupling in couplings.couplings.items())
    x0, x1, drawn = couplings.pair(6000, generator=generator(1))
    assert abs((drawn == 7).double().mean() - 2 / 3) < 0.03
    for label in (7, -2):
        own = {tuple(row) for row in points[labels == label].tolist()}
        assert {tuple(row) for row in x1[drawn == label].tolist()} <= own
        assert abs(x0[drawn == label].mean()) < 0.1  # all of the noise in every class
        assert torch.equal(
            couplings.couplings[label].points[couplings.couplings[label].assign(x0[drawn == label])], x1[drawn == label]
        )
    # One class that is not solved is enough for the whole not to be.
    easy = ClassCouplings(torch.cat([torch.tensor([[-1.0, 0], [1, 0]]), cloud(40, 2)]), [0] * 2 + [1] * 40)
    partly = easy.fit(tol=0.2, max_iterations=6, generator=generator())
    assert partly.results[0].converged and not partly.results[1].converged and not partly.converged
    with pytest.raises(RuntimeError, match=r"not converged: class 1: the upper bound"):
        partly.require()
    for bad in ((points, labels[:5]), (points, labels.double()), (points, torch.tensor([0] * 59 + [1]))):
        with pytest.raises(ValueError, match="labels|class 1"):
            ClassCouplings(*bad)


def test_joint_cost():
    """A large β makes the conditions of a pair agree, a small one gives the coupling without conditions."""
    points = cloud(150, 2)
    z = points[:, :1] + 0.1 * torch.randn(150, 1, generator=generator(3))
    gaps, costs = [], []
    for beta in (1e-3, 1.0, 1e3):
        coupling = JointCoupling(points, z, beta=beta)
        assert coupling.fit(tol=0.1, generator=generator()).require() is coupling.result
        x0, index = coupling.coupling.pair_index(4000, generator=generator(1))
        gaps.append((x0[:, 2] / beta**0.5 - z[index, 0]).square().mean().item())
        x0, x1, condition = coupling.pair(4000, generator=generator(1))
        assert x0.shape == x1.shape == (4000, 2) and torch.equal(condition, z[index])
        costs.append(0.5 * (x0 - x1).square().sum(1).mean().item())
    assert gaps[0] > 2 * gaps[1] > 20 * gaps[2] and costs[0] < costs[1] < costs[2]
    plain = fitted(points, tol=0.1)[1].primal_cost
    assert costs[0] == pytest.approx(plain, rel=0.05)
    given = JointCoupling(points, z, beta=1.0)
    given.fit(conditions=lambda n, *, generator=None: torch.zeros(n, 1), tol=0.1, max_iterations=2, generator=generator())
    assert (given.coupling.pair(10, generator=generator())[0][:, 2] == 0).all()


def test_all_that_is_random_comes_from_the_generator():
    points, labels = cloud(30, 2), torch.arange(30) % 2
    noise = lambda n, *, generator=None: torch.randn(n, 2, generator=generator)
    law = lambda n, *, generator=None: torch.rand(n, 1, generator=generator)
    before = torch.get_rng_state()
    for make, options in (
        (lambda: SemidiscreteCoupling(points, epsilon=0.3), {"noise": noise}),
        (lambda: ClassCouplings(points, labels, epsilon=0.3), {}),
        (lambda: JointCoupling(points, points[:, :1], beta=1.0), {}),
        (lambda: JointCoupling(points, points[:, :1], beta=1.0, epsilon=0.2), {"noise": noise, "conditions": law}),
    ):
        drawn = []
        for _ in range(2):
            coupling = make()
            coupling.fit(max_iterations=3, generator=generator(1), **options)
            pairs = (*coupling.pair(40, generator=generator(2)), *coupling.pairs(labels)(40, generator=generator(3)))
            drawn.append((*pairs, *coupling.pair_index(40, generator=generator(4))))
        assert all(torch.equal(one, other) for one, other in zip(*drawn, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_conditions_go_with_their_points():
    """Any number of them, of any shape, by every kind of pairs; the pairs themselves are those of ``pair``."""
    base = cloud(40, 2)
    points = torch.cat([base, base[:6]])
    labels = torch.arange(46) % 2
    coupling, _ = fitted(points, unequal(46), epsilon=0.2)
    by_class, joint = ClassCouplings(points, labels), JointCoupling(points, 3 * points, beta=0.5)
    for other in (by_class, joint):
        other.fit(tol=0.2, generator=generator())
    number, image = np.arange(46), points[:, :, None] * torch.ones(3)
    for source, own in (
        (coupling, None),
        (prepare(coupling, 300, generator=generator()), None),
        (by_class, labels),
        (joint, 3 * points),
    ):
        x0, x1, *conditions = source.pairs(number, image, labels)(500, generator=generator(1))
        found = conditions[-3]
        assert torch.equal(points[found], x1) and torch.equal(image[found], conditions[-2])
        assert torch.equal(labels[found], conditions[-1]) and len(found.unique()) > 30
        plain = source.pair(500, generator=generator(1))
        assert torch.equal(plain[0], x0) and torch.equal(plain[1], x1) and len(plain) == len(conditions) - 1
        assert own is None or torch.equal(plain[2], own[found])
        for bad in (labels[:-1], torch.tensor(1.0)):
            with pytest.raises(ValueError, match="one row for each of the 46 points"):
                source.pairs(labels, bad)


@pytest.mark.parametrize("epsilon", (0.0, 0.4))
def test_images(epsilon):
    """Images are their flattened points, bit by bit, and come back as images."""
    flat = cloud(60, 12)
    images, z, labels = flat.reshape(60, 3, 2, 2), torch.linspace(0, 1, 60)[:, None, None], torch.arange(60) % 2
    coupling, fit = fitted(images, epsilon=epsilon)
    plain, fit_plain = fitted(flat, epsilon=epsilon)
    assert torch.equal(coupling.potentials, plain.potentials) and fit == fit_plain

    def same(found, expected):
        assert found.shape[1:] == (3, 2, 2) and torch.equal(found.flatten(1), expected)

    for one, two in (
        (coupling, plain),
        (prepare(coupling, 90, generator=generator(2)), prepare(plain, 90, generator=generator(2))),
    ):
        for found, expected in zip(one.pair(70, generator=generator(1)), two.pair(70, generator=generator(1)), strict=True):
            same(found, expected)
    x = torch.randn(5, 3, 2, 2, generator=generator(3))
    assert torch.equal(coupling.assign(x, generator=generator()), plain.assign(x.flatten(1), generator=generator()))
    assert torch.equal(coupling.c_transform(x), plain.c_transform(x.flatten(1)))
    if epsilon:
        same(ExactFlow(coupling).velocity(0.3, x), ExactFlow(plain).velocity(0.3, x.flatten(1)))
        same(ExactFlow(coupling).score(0.3, x), ExactFlow(plain).score(0.3, x.flatten(1)))
    plain.load_state_dict(coupling.state_dict())  # the same points in another shape
    pairs = [(ClassCouplings(p, labels, epsilon=epsilon), JointCoupling(p, z, beta=0.5, epsilon=epsilon)) for p in (images, flat)]
    for one, two in zip(*pairs, strict=True):
        for each in (one, two):
            each.fit(max_iterations=3, generator=generator())
        x0, x1, condition = one.pair(40, generator=generator(1))
        y0, y1, other = two.pair(40, generator=generator(1))
        same(x0, y0)
        same(x1, y1)
        assert torch.equal(condition, other) and condition.shape[1:] == (() if isinstance(one, ClassCouplings) else (1, 1))
    sampler = lambda n, *, generator=None: torch.rand(n, 3, 2, 2, generator=generator)
    coupling = SemidiscreteCoupling(images)
    coupling.fit(sampler, max_iterations=2, generator=generator())
    x0, x1 = coupling.pair(20, generator=generator(1))
    assert x0.shape == x1.shape == (20, 3, 2, 2) and (x0 >= 0).all() and torch.equal(x1, images[coupling.assign(x0)])
    for bad in (lambda: coupling.assign(x.flatten(1)), lambda: coupling.c_transform(x[0])):
        with pytest.raises(ValueError, match=r"x must be a non-empty array of shape \(n, 3, 2, 2\)"):
            bad()

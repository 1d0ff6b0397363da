"""Every combination of generator and data on CPU and GPU, for everything that draws: it works, and results lie beside the data.

Needs a GPU; without one only the combination on the CPU runs.
"""

import itertools

import pytest
import torch

from dynot_lite.couplings import amortized, batches, plans, sliced
from dynot_lite.couplings.conditional import ClassCouplings, JointCoupling
from dynot_lite.couplings.prepared import prepare
from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling
from dynot_lite.datasets import toy
from dynot_lite.datasets.images import colour_sample
from dynot_lite.laws.gaussian import Gaussian
from dynot_lite.laws.mixtures import GaussianMixture
from dynot_lite.matching import flow_matching, mean_flow, networks, training
from dynot_lite.paths import flows
from dynot_lite.potentials import dual
from dynot_lite.potentials.convex import ICNN, LogSumExp

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def points(n, device, seed=0):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed)).to(device)


def sampler(device, seed=0, shift=0.0):
    """A law whose points lie on ``device``, drawn where the generator lives."""
    law = Gaussian(torch.full((2,), shift, device=device), torch.eye(2, device=device))
    return law.sample


def pairs(device):
    return batches.independent(sampler(device), sampler(device, shift=1.0))


def uniform_plan(device):
    return torch.full((6, 6), 1 / 36, device=device)


def labelled(device):
    draw = sampler(device, shift=1.0)
    return lambda n, *, generator=None: (draw(n, generator=generator), torch.arange(n, device=device) % 2)


def trained(loss, network, device, generator):
    return training.fit(network, loss, pairs(device), steps=3, batch=16, generator=generator).losses


def semidiscrete(device, generator, epsilon=0.0):
    coupling = SemidiscreteCoupling(points(50, device), epsilon=epsilon)
    coupling.fit(tol=0.5, generator=generator)
    return coupling


def joint(device, generator):
    coupling = JointCoupling(points(50, device), points(50, device, 1), beta=1.0)
    coupling.fit(tol=0.5, generator=generator)
    return coupling.pair(8, generator=generator)


def by_class(device, generator):
    coupling = ClassCouplings(points(60, device), torch.arange(60, device=device) % 2)
    coupling.fit(tol=0.5, generator=generator)
    return coupling.pair(8, generator=generator)


def predicted(device, generator):
    model = amortized.RegressionAmortization(sliced.directions(2, 4, generator=generator).to(device), epsilon=0.5)
    model.fit([amortized.Problem(points(20, device, k).double(), points(20, device, k + 9).double()) for k in range(2)])
    return amortized.pair_sampler(model, sampler(device), sampler(device, shift=1.0))(16, generator=generator)


CALLS = {
    "Gaussian": lambda d, g: sampler(d)(5, generator=g),
    "GaussianMixture": lambda d, g: GaussianMixture(
        torch.tensor([0.5, 0.5], device=d), points(2, d), torch.eye(2, device=d).expand(2, 2, 2)
    ).sample(5, generator=g),
    "colour_sample": lambda d, g: colour_sample(torch.rand(8, 8, 3, device=d), 10, generator=g),
    "independent": lambda d, g: pairs(d)(8, generator=g),
    "exact": lambda d, g: batches.exact(sampler(d), sampler(d, shift=1.0))(8, generator=g),
    "exact by class": lambda d, g: batches.exact(sampler(d), labelled(d))(8, generator=g),
    "entropic": lambda d, g: batches.entropic(sampler(d), sampler(d, shift=1.0), epsilon=1.0)(8, generator=g),
    "from_plan": lambda d, g: batches.from_plan(points(6, d), points(6, d, 1), uniform_plan(d))(8, generator=g),
    "sample_plan": lambda d, g: plans.sample_plan(uniform_plan(d), 8, generator=g),
    "entropic_pairs": lambda d, g: batches.entropic_pairs(points(6, d), points(6, d, 1), 1.0, generator=g),
    "semidiscrete": lambda d, g: semidiscrete(d, g).pair(8, generator=g),
    "semidiscrete, entropic": lambda d, g: semidiscrete(d, g, 0.5).pair(8, generator=g),
    "prepare": lambda d, g: prepare(semidiscrete(d, g), 100, generator=g).pair(8, generator=g),
    "ClassCouplings": by_class,
    "JointCoupling": joint,
    "amortized.pair_sampler": predicted,
    "hutchinson": lambda d, g: flows.hutchinson_divergence(lambda t, x: x**2, 0.5, points(5, d), probes=2, generator=g),
    "log_prob": lambda d, g: flows.log_prob(
        lambda t, x: x, points(5, d), lambda x: -x.square().sum(1), steps=2, probes=1, generator=g
    ),
    "flow matching": lambda d, g: trained(flow_matching.FlowMatching(), networks.VelocityNetwork(2, generator=g), d, g),
    "mean flow": lambda d, g: trained(mean_flow.MeanFlow(), networks.MeanVelocityNetwork(2, generator=g), d, g),
    "reflow": lambda d, g: flow_matching.reflow(lambda t, x: -x, sampler(d), 20, steps=2, generator=g)(8, generator=g),
    "dual.fit": lambda d, g: dual.fit(sampler(d), sampler(d, shift=1.0), steps=2, batch=32, generator=g).transport(points(5, d)),
    "dual.fit of arrays": lambda d, g: dual.fit(points(50, d), points(50, d, 1), steps=2, batch=32, generator=g).transport(
        points(5, d)
    ),
}


@pytest.mark.parametrize("home, device", [*itertools.product([None, *DEVICES], DEVICES)])
@pytest.mark.parametrize("name", CALLS)
def test_results_lie_beside_the_data_wherever_the_generator_lives(name, device, home):
    generator = None if home is None else torch.Generator(home).manual_seed(1)
    found = CALLS[name](device, generator)
    for part in found if isinstance(found, tuple) else (found,):
        assert part.device.type == device
        assert not part.is_floating_point() or torch.isfinite(part).all()


@pytest.mark.parametrize("device", DEVICES)
def test_a_generator_on_the_cpu_gives_the_same_pairs_on_every_device(device):
    def drawn(device):
        return pairs(device)(6, generator=torch.Generator().manual_seed(4))

    assert all(torch.allclose(one.cpu(), other) for one, other in zip(drawn(device), drawn("cpu"), strict=True))


@pytest.mark.parametrize("home", [None, *DEVICES])
def test_what_has_no_data_stays_where_the_generator_lives(home):
    generator = None if home is None else torch.Generator(home).manual_seed(1)
    for law in (toy.moons, toy.eight_gaussians, toy.checkerboard, toy.torchcfm_moons):
        assert law(4, generator=generator).device.type == (home or "cpu")
    for network in (LogSumExp(2, 4, generator=generator), ICNN(2, (4,), generator=generator)):
        assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}
    assert sliced.directions(3, 4, generator=generator).shape == (4, 3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("options", [{}, {"precision": torch.bfloat16}, {"compile": True}], ids=str)
def test_training_learns_on_every_device_in_every_precision(device, options):
    if "compile" in options and device == "cpu":
        pytest.skip("compiling takes long, and tests/matching does it")
    generator = torch.Generator().manual_seed(0)
    network = networks.VelocityNetwork(2, generator=generator)
    found = training.fit(network, flow_matching.FlowMatching(), pairs(device), steps=300, generator=generator, **options)
    end = flow_matching.sample(found.network, points(500, device), steps=4)
    assert end.device.type == device and (end.mean(0) - 1).abs().max() < 0.25

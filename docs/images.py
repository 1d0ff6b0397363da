"""A flow from noise to your own images, in twenty lines: put them into digits.npy, or change that line."""

import numpy as np
import torch

from dynot_lite import plots
from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling
from dynot_lite.datasets.files import as_images
from dynot_lite.matching import flow_matching, training, unet
from dynot_lite.matching.standardize import Standardize

device = "cuda" if torch.cuda.is_available() else "cpu"
images = as_images(np.load("digits.npy")).to(device)  # (N, 1, 28, 28), (N, 28, 28), in colours, …; uint8 or floating point
rng = torch.Generator(device).manual_seed(0)
scale = Standardize.fit(images)
coupling = SemidiscreteCoupling(scale(images))  # each noise with one of all images
coupling.fit(generator=rng).require()
network = unet.UNet(images.shape[1], width=16, patch=2, generator=rng)
options = dict(seconds=300, batch=128, learning_rate=2e-3, schedule=training.cosine(warm_up=0.05))
flow = training.fit(network, flow_matching.FlowMatching(), coupling.pair, generator=rng, **options).network
noise = torch.randn(64, *images.shape[1:], generator=rng, device=device)
pictures = scale.inverse(flow_matching.sample(flow, noise, steps=2, method="euler"))  # two evaluations of the network
plots.write_images("pictures.png", pictures, columns=8)

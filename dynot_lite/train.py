"""A flow of one's own images from one command: ``python3 run.py train DATA --out RUN``, and what it leaves, in Python.

Under torchrun the processes share the work, each on a device of its own: the noise of the coupling, and the batches of training,
so that a step averages the gradients of as many batches as there are processes::

    torchrun --standalone --nproc-per-node 8 -m dynot_lite train DATA --out RUN

What a run leaves is one file: the network, the scale of its data, and what both were made with::

    flow = train.load("RUN/model.pt")
    pictures = flow.sample(64, steps=4)             # in [0, 1], shape (64, channels, height, width)
    plots.write_images("pictures.png", pictures, columns=8)
"""

import argparse
import contextlib
import csv
import hashlib
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from dynot_lite import metrics, plots
from dynot_lite._base import checkpoints, randomness, ranks
from dynot_lite._base import checks as check
from dynot_lite._base.progress import bar
from dynot_lite._base.results import Result
from dynot_lite._base.samplers import PairSampler
from dynot_lite.companion.processes import holding
from dynot_lite.couplings import batches
from dynot_lite.couplings.conditional import ClassCouplings
from dynot_lite.couplings.distributed import own_generator, processes
from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling
from dynot_lite.course.cli import at_least
from dynot_lite.datasets import files, mnist, samplers
from dynot_lite.matching import classifier, flow_matching, training
from dynot_lite.matching.standardize import Standardize
from dynot_lite.matching.unet import UNet

__all__ = ["ImageFlow", "add_parser", "load"]

TRAIN = """\
Train a flow from noise to the images of DATA: a folder of images (all of one size, or with --size; classes are sub-folders), an
array (N, height, width), (N, channels, height, width) or (N, height, width, channels) in a .npy file, or a .npz file with
"images" and, maybe, "labels"; or the word mnist. A tenth of the images is held out to compare with.

RUN takes model.pt (which dynot_lite.train.load reads), samples.png (the same noise at 1, 2, 4, 8 and 32 evaluations of the
network, from top to bottom), losses.png, table.csv (how far samples are from the images held out), and samples/ as training goes
on. The same command goes on where it was interrupted; with more --seconds it goes on where it ended.

It trains on the GPU if there is one. Several share the work: torchrun --nproc-per-node N -m dynot_lite train DATA --out RUN"""

COUPLINGS = ("semidiscrete", "independent", "batch")
EVALUATIONS = (1, 2, 4, 8, 32)
SAMPLES = 2000  # compared with the images held out
ROW = 10  # images in a row of samples.png
BLOCK = 512  # images that go through the network at a time
PAUSE = 10.0  # seconds between pictures of the training


class ImageFlow(nn.Module):
    """A velocity of standardised images, with the scale of its data: what a run leaves.

    Args:
        network: callable (t, x) or (t, x, labels), of images of ``shape``.
        scale: the Standardize of its data.
        shape: (channels, height, width).
    """

    def __init__(self, network: nn.Module, scale: Standardize, shape: tuple[int, ...]):
        super().__init__()
        self.network, self.scale, self.shape = network, scale, tuple(shape)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        steps: int = 4,
        method: str = "euler",
        labels=None,
        scale: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``n`` images with values in [0, 1], which others are cut to, shape (n, channels, height, width).

        Args:
            steps, method: as of :func:`dynot_lite.matching.flow_matching.sample`: one evaluation a step with "euler".
            labels: the class of each image, shape (n,), -1 for none, of a network with classes; None for the unconditional field.
            scale: of :func:`dynot_lite.matching.flow_matching.guided`: 1 for the field of the class.
        """
        weight = next(self.network.parameters())
        noise = randomness.normal(check.count(n, "n"), *self.shape, generator=generator, like=weight)
        labels = None if labels is None else check.rows(labels, n, "labels", like=noise)
        found = []
        for x0, own in zip(noise.split(BLOCK), [None] * n if labels is None else labels.split(BLOCK), strict=False):
            if own is None:
                field: Callable = self.network
            elif check.number(scale, "scale") == 1:
                field = partial(_labelled, self.network, own)
            else:
                field = flow_matching.guided(self.network, own, scale=scale)
            x = flow_matching.sample(field, x0, steps=steps, method=method)
            found.append(self.scale.inverse(x).clamp(0, 1))
        return torch.cat(found)


def _labelled(network: Callable, labels: Tensor, t, x: Tensor) -> Tensor:
    return network(t, x, labels)


def load(path) -> ImageFlow:
    """The :class:`ImageFlow` of a file ``model.pt``, on the CPU, in evaluation mode.

    Raises:
        ValueError: there is no such file, it is damaged, or no model of the command ``train``.
    """
    state = checkpoints.read(path)
    try:
        flow = ImageFlow(UNet(**state["network"]), Standardize(), state["shape"])
        flow.load_state_dict(state["state"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} is no model of the command train") from error
    return flow.eval().requires_grad_(False)


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command ``train`` to the parser of the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    train = commands.add_parser("train", help="train a flow of your own images", description=TRAIN, formatter_class=layout)
    option = train.add_argument
    option("data", metavar="DATA", help="folder, .npy or .npz file, or the word mnist")
    option("--out", type=Path, required=True, metavar="RUN", help="folder to write to, and to go on from")
    option("--coupling", choices=COUPLINGS, default=COUPLINGS[0], help="how noise is paired with images (default: semidiscrete)")
    option("--epsilon", type=float, default=0.0, help="of the semidiscrete coupling, cost ½|x − y|² + ε KL (default: 0)")
    option("--tol", type=float, default=0.05, help="χ² of the semidiscrete coupling (default: 0.05)")
    option("--by-class", action="store_true", help="condition on the labels, and pair within classes")
    option("--size", type=at_least(1), help="make images size × size pixels")
    budget = train.add_mutually_exclusive_group()
    budget.add_argument("--seconds", type=float, default=600.0, help="of training, the coupling aside (default: 600)")
    budget.add_argument("--steps", type=at_least(1), help="of training, instead of seconds")
    option("--batch", type=at_least(1), default=128, help="pairs a step, of each process (default: 128)")
    option("--learning-rate", type=float, default=2e-3, help="at its largest (default: 0.002)")
    option("--width", type=at_least(1), default=32, help="channels of the network's finest level (default: 32)")
    option("--levels", type=at_least(1), default=2, help="levels of the network (default: 2)")
    option("--patch", type=at_least(1), help="side of the patches it sees (default: 2, and 1 of images below 16 pixels)")
    option("--attention", action="store_true", help="attention at the coarsest level")
    option("--mixed", action="store_true", help="mixed precision (bfloat16)")
    option("--seed", type=at_least(0), default=0, help="of all random numbers (default: 0)")
    train.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    try:
        with processes() as device:
            group = distributed.group.WORLD if distributed.is_available() and distributed.is_initialized() else None
            with holding(options.out) if ranks.is_first(group) else contextlib.nullcontext():
                _Run(options, device, group).go()
    except torch.OutOfMemoryError:
        return _refuse("the memory of the GPU is full: a smaller --batch or --width may fit")
    except (ValueError, RuntimeError, FileNotFoundError) as error:
        return _refuse(str(error))
    return 0


def _refuse(why: str) -> int:
    print(f"train: {why}", file=sys.stderr)
    return 1


class _Run:
    """One run of the command, or one process of it."""

    def __init__(self, options: argparse.Namespace, device: torch.device, group):
        self.options, self.device, self.group, self.out = options, device, group, options.out
        self.rank = 0 if group is None else distributed.get_rank()
        images, labels, held, source = _data(options)
        if options.by_class and labels is None:
            raise ValueError("--by-class needs labels: sub-folders, or an array 'labels' in the .npz file")
        self.images, self.labels, self.held = images, labels, held
        self.say(source)
        self.say(f"{len(images):,} images of {' × '.join(map(str, images.shape[1:]))} to train on, {len(held):,} held out")
        ranks.told(self._same_run, group)
        scale = Standardize.fit(images).to(device)
        self.points = scale(images.to(device)).float()
        shape = tuple(images.shape[1:])
        patch = options.patch or (2 if min(shape[1:]) >= 16 else 1)
        classes = int(labels.max()) + 1 if options.by_class and labels is not None else None
        given = {name: getattr(options, name) for name in ("width", "levels", "attention")}
        self.network: dict[str, Any] = dict(channels=shape[0], patch=patch, classes=classes, **given)
        generator = torch.Generator().manual_seed(options.seed)
        self.flow = ImageFlow(UNet(**self.network, generator=generator), scale, shape)
        self.drawn = -PAUSE

    def say(self, text: str) -> None:
        if self.rank == 0:
            print(text, flush=True)

    def _same_run(self) -> None:
        """Keep what the run is of in a file; refuse a folder that has another run."""
        budget = {"out", "run", "rest", "seconds", "data"}
        wanted = {name: value for name, value in vars(self.options).items() if name not in budget}
        digest = hashlib.sha256(self.images.contiguous().numpy())
        digest.update(b"" if self.labels is None else self.labels.contiguous().numpy())
        wanted["images"] = digest.hexdigest()[:16]
        path = self.out / "run.json"
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            other = [name for name in wanted if found.get(name) != wanted[name]]
            if other:
                pairs = ", ".join(f"{name} {found.get(name)} there and {wanted[name]} here" for name in other)
                raise ValueError(f"{self.out} has another run: {pairs}; give another folder as --out")
        elif any(entry.name != "lock" for entry in self.out.iterdir()):
            raise ValueError(f"{self.out} has other files; give a new folder as --out")
        else:
            checkpoints.save(json.dumps(wanted, indent=1).encode(), path)

    def go(self) -> None:
        options = self.options
        pairs = self._pairs()
        # The numbers of training are the same whether or not the coupling was interrupted.
        generator = own_generator(self.device, "training", options.seed, self.rank)
        result = training.fit(
            self.flow.network, flow_matching.FlowMatching(), pairs, batch=options.batch, learning_rate=options.learning_rate,
            steps=options.steps, seconds=None if options.steps else options.seconds, schedule=training.cosine(warm_up=0.05),
            precision=torch.bfloat16 if options.mixed else None, checkpoint=self.out / "training.pt",
            callback=self._look, generator=generator, group=self.group,
        )  # fmt: skip
        if self.rank:
            return
        self.flow.network = result.network
        state = dict(network=self.network, shape=self.flow.shape, state=self.flow.cpu().state_dict())
        checkpoints.save(state, self.out / "model.pt")
        self.flow.to(self.device)
        self._look(result, always=True)
        self.say(f"training: {result.steps:,} steps in {result.seconds:,.0f} s")
        self._judge()

    def _pairs(self) -> PairSampler:
        """The pair sampler, of (x0, x1) or (x0, x1, labels)."""
        options, points = self.options, self.points
        labels = self.labels.to(self.device) if options.by_class and self.labels is not None else None
        if options.coupling == "semidiscrete":
            return self._semidiscrete(labels)
        source = lambda n, *, generator=None: randomness.normal(n, *points.shape[1:], generator=generator, like=points)
        sampler = batches.exact if options.coupling == "batch" else batches.independent
        return sampler(source, samplers.from_points(points, labels))

    def _semidiscrete(self, labels: Tensor | None) -> PairSampler:
        """The pair sampler of a fitted coupling, which is kept, and once it is fitted taken as it is."""
        options, path = self.options, self.out / "coupling.pt"
        if labels is None:
            coupling = SemidiscreteCoupling(self.points, epsilon=options.epsilon)
            parts = {0: coupling}
        else:
            coupling = ClassCouplings(self.points, labels, epsilon=options.epsilon)
            parts = coupling.couplings
        # Read by one process for all: they need not share a disk, and cannot read two versions of it.
        kept = ranks.told(lambda: checkpoints.read(path) if path.exists() else {"parts": {}, "report": []}, self.group)
        for label, state in kept["parts"].items():
            parts[label].load_state_dict(state)

        def keep(part: SemidiscreteCoupling) -> None:
            kept["parts"].update({label: part.state_dict() for label, other in parts.items() if other is part})
            checkpoints.save(kept, path)

        if not kept["report"]:
            # Neither another process nor the run before an interruption may have drawn the same noise.
            done = sum(state["noises"] for state in kept["parts"].values())
            result = coupling.fit(
                tol=options.tol, callback=None if self.rank else keep, group=self.group, progress=False if self.rank else None,
                generator=own_generator(self.device, "coupling", options.seed, self.rank, done),
            )  # fmt: skip
            kept["report"] = self._report(result, list(parts.values()))
            for part in parts.values() if self.rank == 0 else ():
                keep(part)
        for line in kept["report"]:
            self.say(f"coupling: {line}")
        return coupling.pair

    def _report(self, result: Result, parts: list[SemidiscreteCoupling]) -> list[str]:
        """What became of the coupling, in lines."""
        fits = [(len(part.points) / len(self.points), part.result) for part in parts if part.result is not None]
        cost = sum(share * fit.primal_cost for share, fit in fits)
        apart = 0.5 * (self.points[0].numel() + self.points.flatten(1).square().sum(1).mean().item())
        lines = [result.reason, f"mean cost ½|x − y|² of its pairs {cost:.4g}, of independent pairs {apart:.4g}"]
        if not result.converged:
            empty = sum(fit.empty_cells for _, fit in fits)
            lines.append(
                f"NOT converged: {empty:,} images met no noise, and may be missing from training; a larger --tol ends sooner"
            )
        return lines

    def _look(self, result: training.Training, *, always: bool = False) -> None:
        """Pictures of the training so far, at most one in PAUSE seconds."""
        if not always and time.monotonic() - self.drawn < PAUSE:
            return
        self.drawn = time.monotonic()
        self._draw_losses(result.losses)
        now = ImageFlow(result.network, self.flow.scale, self.flow.shape)
        folder = self.out / "samples"
        folder.mkdir(exist_ok=True)
        noise = torch.Generator().manual_seed(self.options.seed)
        images = now.sample(64, steps=4, labels=self._classes(64), generator=noise)
        plots.write_images(folder / f"step_{result.steps:07d}.png", images, columns=8)

    def _classes(self, n: int) -> Tensor | None:
        """The classes of ``n`` images to draw, one after the other, or None."""
        if not self.options.by_class or self.labels is None:
            return None
        known = self.labels.unique()
        return known[torch.arange(n) % len(known)]

    def _draw_losses(self, losses: Tensor) -> None:
        figure, ax = plots.plt.subplots(figsize=(6, 3.4), layout="constrained")
        plots.against_steps(ax, losses.cpu() / self.points[0].numel())
        ax.set(ylabel="mean squared error of the velocity")
        figure.savefig(self.out / "losses.png", dpi=110)
        plots.plt.close(figure)

    def _judge(self) -> None:
        """The table of distances, and the picture of samples, at each number of evaluations."""
        rows = {k: self.flow.sample(ROW, steps=k, labels=self._classes(ROW), generator=self._noise()) for k in EVALUATIONS}
        plots.write_images(self.out / "samples.png", torch.cat([*rows.values()]), columns=ROW)
        n = min(SAMPLES, len(self.images))
        distance, what = self._distance()
        draw = torch.Generator().manual_seed(self.options.seed)
        some = randomness.permutation(len(self.images), generator=draw)[:n]
        labels = self.labels[some] if self.options.by_class and self.labels is not None else None
        found = {}
        with bar(sum(EVALUATIONS), "samples", None) as shown:
            for k in EVALUATIONS:
                found[k] = distance(self.flow.sample(n, steps=k, labels=labels, generator=self._noise()).cpu())
                shown.update(k)
        floor = distance(self.images[some])
        with open(self.out / "table.csv", "w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream)
            table.writerow(["evaluations", what])
            table.writerows([*found.items(), ("images", floor)])
        self.say(f"{what}, of {n:,} samples from {len(self.held):,} images held out; of {n:,} images trained on: {floor:.4g}")
        self.say("evaluations" + "".join(f"{k:>10}" for k in found))
        self.say("distance   " + "".join(f"{value:>10.4g}" for value in found.values()))
        self.say(f"written: {self.out / 'model.pt'}, samples.png, losses.png, table.csv")

    def _noise(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.options.seed + 1)

    def _distance(self) -> tuple[Callable[[Tensor], float], str]:
        """The distance of images from those held out, and its name: with labels in the features of a classifier."""
        if self.labels is None or len(self.labels.unique()) < 2:
            pixels = self.held.flatten(1)
            return lambda images: metrics.energy_distance(images.flatten(1), pixels), "energy distance of the pixels"
        # Not of the generator of the run: runs of one data set have one judge, whatever their seeds and couplings.
        judge: Any = classifier.fit(self.images, self.labels, generator=torch.Generator().manual_seed(0)).network

        @torch.no_grad()
        def features(images: Tensor) -> Tensor:
            return torch.cat([judge.features(block) for block in images.split(BLOCK)])

        held = features(self.held)
        return lambda images: metrics.frechet_distance(features(images), held), "Fréchet distance in a classifier's features"


def _data(options: argparse.Namespace) -> tuple[Tensor, Tensor | None, Tensor, str]:
    """Images and labels to train on, images held out, all on the CPU, and where they come from."""
    if options.data == "mnist":
        if options.size is not None:
            raise ValueError("--size is for DATA in files; images of mnist have 28 × 28 pixels")
        data = mnist.mnist()
        return data.images, data.labels, data.test_images, data.source
    images, labels = files.load_images(options.data, size=options.size)
    n = len(images)
    if n < 20:
        raise ValueError(f"DATA must hold 20 images or more, got {n}")
    order = randomness.permutation(n, generator=torch.Generator().manual_seed(0))
    held, kept = order.tensor_split([min(n // 10, 10_000)])
    return images[kept], None if labels is None else labels[kept], images[held], str(options.data)

"""What each of two processes of torchrun does for ``test_two_ranks.py``: several trainings together, stored for a comparison."""

import itertools
import sys
from pathlib import Path

import torch
from torch import distributed

from dynot_lite.matching import flow_matching
from dynot_lite.matching.flow_matching import FlowMatching
from dynot_lite.matching.training import cosine, fit
from dynot_lite.matching.unet import UNet

OPTIONS = dict(steps=30, learning_rate=0.01, schedule=cosine(warm_up=0.1), clip=20.0, ema=0.9)


class Killed(Exception):
    pass


def generator(seed):
    return torch.Generator().manual_seed(seed)


def network(seed=0):
    return UNet(1, width=4, classes=2, generator=generator(seed))


def timed(n, *, generator):
    """Pairs, labels and a time: the loss then draws nothing."""
    x1 = torch.linspace(-1, 1, 6, dtype=torch.float64) * torch.ones(n, 1, 6, 1, dtype=torch.float64)
    x0, t = torch.randn(n, 1, 6, 6, generator=generator, dtype=torch.float64), torch.rand(n, generator=generator).double()
    return x0, x1, torch.randint(2, (n,), generator=generator), t


def at_its_time(network, x0, x1, labels, t, *, generator=None):
    return flow_matching.loss(network, x0, x1, t, labels)


def both(n, *, generator):
    """The batches of two ranks in one, from a pair of generators."""
    return tuple(torch.cat(parts) for parts in zip(*(timed(n // 2, generator=one) for one in generator), strict=True))


def labelled(n, *, generator):
    return timed(n, generator=generator)[:3]


def killed(pairs, calls):
    count = itertools.count()

    def draw(n, *, generator):
        if next(count) == calls:
            raise Killed
        return pairs(n, generator=generator)

    return draw


def slower_on_the_second(n, *, generator):
    if distributed.get_rank():
        sum(torch.randn(300, 300).norm() for _ in range(20))
    return labelled(n, generator=generator)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank, group = distributed.get_rank(), distributed.group.WORLD
    found = {}

    def run(name, pairs=labelled, loss=FlowMatching(), seed=rank, **options):
        one = generator(10 + seed)
        try:
            result = fit(network(rank), loss, pairs, batch=4, group=group, generator=one, **OPTIONS | options)
        except (ValueError, RuntimeError, Killed) as error:
            found[name] = f"{type(error).__name__}: {error}"
            return
        found[name] = {"losses": result.losses, "network": result.network.state_dict(), "generator": one.get_state()}

    run("exact", timed, at_its_time)
    run("whole")
    run("killed", killed(labelled, 18), checkpoint=folder / "run")
    run("resumed", seed=50 + rank, checkpoint=folder / "run")
    run("other", seed=50 + rank, checkpoint=folder / "run", learning_rate=0.1)
    seen = []
    run("called", callback=lambda so_far: seen.append(so_far.steps))
    found["seen"] = seen
    run("same generator", seed=0)
    run("seconds", slower_on_the_second, steps=None, seconds=1.0)
    infinite = lambda network, x0, x1, labels, generator=None: network(0.5, x0).sum() * (torch.inf if rank else 1.0)
    run("infinite", loss=infinite)
    torch.save(found, folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

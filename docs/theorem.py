"""Action matching over optimal actions is optimal transport (arXiv 2510.27385): thirty lines, for your own potential and path.

Needs torch only. Replace psi, a strongly convex and smooth function, and path, any motion of samples, and run it. The action is
found by its definition, its derivatives by differences of its values: nothing that the theorem says is used. Proof: the notebook
proofs/05_am_ot_equivalence, section 4.
"""

import torch

torch.set_default_dtype(torch.float64)
x0, y = torch.randn(2, 100, 2, generator=torch.Generator().manual_seed(0))
psi = lambda x: 0.2 * x.square().sum(-1) + torch.logsumexp(x @ torch.tensor([[1.0, -2.0, 0.5], [2.0, 1.0, -1.0]]), -1)  # yours
path = lambda t: (1 - t) * x0 + t * (y**2 - 1) + 3 * t * (1 - t) * y.flip(0)  # yours: a time in [0, 1] to points (n, d)
x1 = path(1.0)


def s(t, x):  # the action, s_t(x) = min_z psi(z) - |z|²/2 + |x - z|²/2t, by Newton's method with steps halved if need be
    goal = lambda z, x: (1 - t) * z @ z / 2 + t * psi(z) - x @ z
    slope, bend = (torch.func.vmap(derivative(goal)) for derivative in (torch.func.grad, torch.func.hessian))
    z, length, size = x, slope(x, x).norm(dim=1, keepdim=True), torch.ones(len(x), 1)
    for _ in range(100):
        if length.max() < 1e-9:
            return psi(z) - z.square().sum(1) / 2 + (x - z).square().sum(1) / (2 * t)
        new = z - size * torch.linalg.solve(bend(z, x), slope(z, x))
        better = (found := slope(new, x).norm(dim=1, keepdim=True)) < length
        z, length, size = torch.where(better, new, z), torch.where(better, found, length), torch.where(better, 1, size / 2)
    raise SystemExit("Newton's method does not find the minimum: psi must be strongly convex and smooth")


def loss(s, film, total, h=1e-4):  # adds the mean over times of E[∂_t s + |∇s|²/2] to the total of the two ends
    for t in (times := [0.1, 0.5, 0.8]):
        slope = lambda dt, dx, t=t: (s(t + dt, film(t) + dx) - s(t - dt, film(t) - dx)) / (2 * h)
        total = total + (slope(h, 0) + sum(slope(0, h * e) ** 2 for e in torch.eye(x0.shape[1])) / 2).mean() / len(times)
    return total


start, half_moments = lambda x: psi(x) - x.square().sum(1) / 2, (x0.square().sum(1) + x1.square().sum(1)).mean() / 2
wrong = lambda t, x: (1 - t) * start(x) + t * s(1.0, x)  # right at both ends, not in between
print(f"L_OT - (m2 + m2)/2        {psi(x0).mean() + (x1.square().sum(1) / 2 - s(1.0, x1)).mean() - half_moments:12.8f}")
straight, squeezed = lambda t: (1 - t) * x0 + t * x1, lambda t: abs(1 - 2 * t) * (x0 if t < 0.5 else x1)
for name, film in {"your path": path, "straight": straight, "squeezed": squeezed}.items():
    right, other = (loss(action, film, start(x0).mean() - s(1.0, x1).mean()) for action in (s, wrong))
    print(f"L_AM along {name:15s}{right:12.8f}, of a wrong action {other:12.8f}")

"""Douglas–Rachford on the staggered grid: the proximal map of the energy in turn with the projection onto continuity.

In a cell with opposite face values a and b put z = (a + b)/2 and w = (b − a)/2. With the metric z² + w² every face between two
cells has weight 1; the lift I of face values to (z, w) is then an isometry, and the projection onto {lifted fields of zero
divergence} is I P I*, P being the projection of face values, one Poisson problem in space and time. The iteration alternates it
with the proximal map of Σ ½|m|²/ρ at the cell centres, one cubic equation in each cell.
"""

from dataclasses import dataclass

import numpy as np

from dynot_lite.grids import operators as grid
from dynot_lite.grids.staggered import Staggered, on_faces

RELAXATION = 1.8
# The proximal step, relative to the largest density: a large one moves the density fast, a small one settles the energy.
FIRST_STEP, LAST_STEP = 0.4, 0.06
# Over so many iterations the step settles from a good start.
DECAY = 15
CHECK_EVERY = 5
# Densities below this fraction of the maximum are raised to it in the quotient |m|²/ρ.
VACUUM = 1e-5


@dataclass(frozen=True)
class State:
    """The lifted variable of the iteration, changed in place: means z and half differences w of opposite faces."""

    z: list[np.ndarray]
    w: list[np.ndarray]


@dataclass(frozen=True)
class Iterate:
    """What the iteration leaves: admissible faces, the dual potential, its gradient at the cell centres, and how it went."""

    faces: list[np.ndarray]
    potential: np.ndarray
    multiplier: list[np.ndarray]
    history: list[tuple[float, float, float, float]]
    converged: bool


def proximal(parts: list[np.ndarray], step) -> list[np.ndarray]:
    """Minimise ½|m|²/ρ + (|ρ − ρ₀|² + |m − m₀|²)/2γ in each cell.

    With s = ρ + γ this is s³ − (ρ₀ + γ)s² − γ|m₀|²/2 = 0 and m = m₀ρ/s. The start is above the largest root, where the cubic is
    convex, so that Newton descends monotonically; four steps are exact to 1e-5.
    """
    density, *momenta = parts
    a = density + step
    c = sum((m * m for m in momenta[1:]), momenta[0] * momenta[0])
    c *= step / 2
    # A cube root by exp and log, which numpy vectorises; the shift keeps the logarithm finite.
    s = np.log(c + 1e-30)
    s *= 1 / 3
    np.exp(s, out=s)
    s *= 1.0001
    s += np.maximum(a, 0)
    for _ in range(4):
        excess = s - a
        value = s * s
        value *= excess
        value -= c
        excess *= 2
        excess += s
        excess *= s
        value /= excess
        s -= value
    s -= step
    np.maximum(s, 0, out=s)
    ratio = s / (s + step)
    return [s, *(m * ratio for m in momenta)]


def kinetic(values: list[np.ndarray], floor: float) -> float:
    """Return Σ |m|²/max(ρ, floor) over cells."""
    return float((sum(m * m for m in values[1:]) / np.maximum(values[0], floor)).sum(dtype=np.float64))


def step_size(largest: float, progress: float) -> float:
    """Return γ, which goes from FIRST_STEP to LAST_STEP in geometric progression while progress goes from 0 to 1."""
    return float(largest * FIRST_STEP * (LAST_STEP / FIRST_STEP) ** min(1.0, progress))


def iterate(model: Staggered, mu, nu, state: State, max_iterations: int, *, tol=0.0, bar=None, decay=DECAY) -> Iterate:
    """Iterate Z ← Z + α(I P I*(2V − Z) − V) with V = prox(Z) on one grid, in place.

    One pass over the time slabs applies the proximal map, subtracts αV and gathers I*(2V − Z) on the faces; after the projection
    a second pass adds the lifted faces. Nothing of the size of V is stored.
    """
    real = state.z[0].dtype
    faces = [np.zeros(model.face_shape(axis), real) for axis in model.staggered]
    if model.growth is not None:
        faces.append(np.zeros(model.cells, real))
    block = max(1, grid.BLOCK // mu.size)
    slabs = [slice(k, min(model.cells[0], k + block)) for k in range(0, model.cells[0], block)]
    largest = float(max(mu.max(), nu.max()))
    # Coarse grids, which have no bar, hand on a good density; only the finest settles the energy, and looks whether it has.
    finest = bar is not None
    step = step_size(largest, 0)
    history, converged = [], False
    for iteration in range(1, max_iterations + 1):
        looked_at = finest and (iteration % CHECK_EVERY == 0 or iteration == max_iterations)
        following = step_size(largest, iteration / decay if finest else 0)
        priced, densities = 0.0, []
        faces[0][...] = 0
        for slab in slabs:
            values = proximal([z[slab] for z in state.z], step)
            if model.free is not None:
                values = [v * model.free for v in values]
            if looked_at:
                priced += kinetic(values, VACUUM * largest)
                densities.append(values[0].copy())
            _reflect(model, state, faces, slab, values, following / step)
        step = following
        if model.free_faces is not None:
            for axis in model.staggered[1:]:
                faces[axis] *= model.free_faces[axis]
        faces[0][0], faces[0][-1] = mu, nu
        potential = model.poisson(model.divergence(faces))
        model.add_difference(faces[0], potential, 0)
        admissible, distance = 0.0, 0.0
        for index, slab in enumerate(slabs):
            means = _correct(model, state, faces, slab, potential)
            if looked_at:
                admissible += kinetic(means, VACUUM * largest)
                distance += float(np.abs(means[0] - densities[index]).sum(dtype=np.float64))
        if finest:
            bar.update()
        if looked_at:
            unit = model.horizon**2 / potential.size
            distance /= potential.size
            history.append((iteration, admissible * unit, priced * unit, distance))
            # Equal data have no energy to be relative to; 1e-6 is the square of a thousandth of the box.
            agree = abs(admissible - priced) * unit <= tol * (admissible * unit + 1e-6)
            if iteration >= decay and agree and distance <= tol / 4:
                converged = True
                break
    values = proximal(state.z, step)
    multiplier = [(z - v) / step for z, v in zip(state.z, values, strict=True)]
    return Iterate(faces, np.multiply(potential, model.horizon / step), multiplier, history, converged)


def _reflect(model, state, faces, slab, values, ratio) -> None:
    """Subtract αV from Z in one slab of cells and add I*(2V − Z) to the faces; first scale the multiplier Z − V by ``ratio``.

    The half differences have no price, so that they are equal in V and Z.
    """
    for component, value in enumerate(values):
        z = state.z[component][slab]
        if ratio != 1:
            # The step changes: V stays what it is, and Z − V is γ times the multiplier.
            z -= value
            z *= ratio
            z += value
        reflected = value + value
        reflected -= z
        z -= RELAXATION * value
        if component not in model.staggered:
            faces[component][slab] = reflected
            continue
        w = state.w[component][slab]
        high, low = reflected + w, reflected - w
        high *= 0.5
        low *= 0.5
        w *= 1 - RELAXATION
        if component == 0:
            faces[0][slab.start + 1 : slab.stop + 1] += high
            faces[0][slab] += low
        else:
            on_faces(np.add, high, low, component, periodic=model.periodic, out=faces[component][slab])


def _correct(model, state, faces, slab, potential) -> list[np.ndarray]:
    """Complete the projection of the faces in one slab and add α times their lift to Z; returns the means of the faces."""
    means = []
    for component, face in enumerate(faces):
        z, face = state.z[component][slab], face[slab]
        if component not in model.staggered:
            face += potential[slab] * (1 / model.growth)
            z += RELAXATION * face
            means.append(face)
            continue
        if component == 0:
            low, high = face, faces[0][slab.start + 1 : slab.stop + 1]
        else:
            model.add_difference(face, potential[slab], component)
            low, high = grid.cut(face, component, 0, -1), grid.cut(face, component, 1, None)
        middle = low + high
        middle *= 0.5
        means.append(middle)
        z += RELAXATION * middle
        change = high - low
        change *= RELAXATION / 2
        state.w[component][slab] += change
    return means

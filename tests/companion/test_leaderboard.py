"""The score of the leaderboard, for maps that are right, wrong by a known amount, or no maps at all; and its file of rows."""

import numpy as np
import pytest
import torch

from dynot_lite.companion.leaderboard import DIMENSIONS, score, submitted
from dynot_lite.datasets.w2_benchmark import save_w2_pair, synthetic_w2_pair

PAIR = synthetic_w2_pair(3, generator=torch.Generator().manual_seed(0))


def test_the_truth_scores_zero_and_a_constant_map_a_hundred():
    assert score(PAIR.transport, PAIR).uvp == 0
    mean = PAIR.target(2**16, generator=torch.Generator().manual_seed(1)).mean(0)
    judged = score(lambda x: mean.expand_as(x), PAIR)
    assert abs(judged.uvp - 100) < 4 * judged.error + 0.5


def test_a_map_that_is_wrong_by_a_known_amount():
    shift = torch.tensor([0.1, -0.2, 0.2])
    judged = score(lambda x: PAIR.transport(x) + shift, PAIR)
    assert judged.uvp == pytest.approx(100 * 0.09 / PAIR.target_variance, rel=1e-4)
    assert judged.error < 1e-4  # it is wrong by as much everywhere
    assert judged.dim == 3 and 0.9 < judged.cosine < 1


def test_the_standard_error_is_that_of_the_test_points():
    wrong = lambda x: PAIR.transport(x) + 0.3 * x
    first = score(wrong, PAIR)
    generator, values = torch.Generator().manual_seed(5), []
    for _ in range(60):
        x = PAIR.source(2**14, generator=generator)
        values.append(100 * 0.09 * x.square().sum(1).mean().item() / PAIR.target_variance)
    assert 0.7 < np.std(values) / first.error < 1.4
    assert abs(np.mean(values) - first.uvp) < 4 * first.error


def test_arrays_and_other_dtypes_are_maps_too():
    expected = score(lambda x: 2 * x, PAIR)
    assert score(lambda x: 2 * x.numpy(), PAIR) == expected
    assert score(lambda x: (2 * x).double(), PAIR) == expected
    assert score(torch.nn.Identity(), PAIR).uvp == score(lambda x: x, PAIR).uvp


def test_a_map_that_writes_into_its_points_is_judged_on_the_points_themselves():
    assert score(lambda x: x.mul_(2), PAIR).cosine == score(lambda x: 2 * x, PAIR).cosine


def test_a_dimension_reads_the_checkpoints(tmp_path, monkeypatch):
    save_w2_pair(2, tmp_path, generator=torch.Generator().manual_seed(3))
    monkeypatch.setenv("DYNOT_DATA", str(tmp_path))
    assert score(lambda x: x, 2).dim == 2
    with pytest.raises(ValueError, match=r"4_v1\.pt"):
        score(lambda x: x, 4)


@pytest.mark.parametrize(
    "transport, words",
    [(torch.zeros(3, 3), "map"), (lambda x: x[:, :2], "shape"), (lambda x: x[:5], "shape"), (lambda x: x * torch.nan, "finite")],
)
def test_what_is_no_map_is_refused_in_a_sentence(transport, words):
    with pytest.raises(ValueError, match=words):
        score(transport, PAIR)


def test_the_rows_that_we_did_not_run():
    rows = submitted()
    assert len(rows) > 10 and {"reported", "recalled"} <= {row.kind for row in rows}
    assert all(set(row.uvp) <= set(DIMENSIONS) for row in rows)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": '"measured here"'},
        {"kind": '"best"'},
        {"source": '""'},
        {"source": None},
        {"kind": None},
        {"uvp": None},
        {"uvp": "{ 2 = -1.0 }"},
        {"uvp": "{}"},
        {"uvp": "{ 3 = 1.0 }"},
    ],
)
def test_a_row_that_hides_where_it_comes_from_is_refused(wrong, tmp_path):
    right = {"method": '"m"', "kind": '"submitted"', "source": '"s"', "uvp": "{ 2 = 1.5 }"}
    file = tmp_path / "rows.toml"
    for fields, refused in ((right, False), (right | wrong, True)):
        lines = [f"{name} = {value}" for name, value in fields.items() if value is not None]
        file.write_text("\n".join(["[[row]]", *lines]), encoding="utf-8")
        if not refused:
            assert [row.uvp for row in submitted(file)] == [{2: 1.5}]
            continue
        with pytest.raises(ValueError, match="m must have a source"):
            submitted(file)

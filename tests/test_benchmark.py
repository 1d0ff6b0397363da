import time

import pytest
import torch

from dynot_lite.companion.benchmark import medians


def test_medians_order_a_slow_and_a_fast_candidate_on_one_thread():
    threads, seen = torch.get_num_threads(), []
    found = medians({"slow": lambda: (seen.append(torch.get_num_threads()), time.sleep(0.02)), "fast": lambda: None}, repeats=3)
    assert found["slow"] > 0.02 > found["fast"]
    assert seen == [1] * 4  # one warm-up round
    assert torch.get_num_threads() == threads
    with pytest.raises(ValueError, match="repeats must be"):
        medians({}, repeats=0)

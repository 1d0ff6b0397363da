import time

import pytest
import torch

from dynot_lite.companion.benchmark import medians


def test_medians_order_a_slow_and_a_fast_candidate_on_one_thread():
    threads, seen = torch.get_num_threads(), []

    def slow():
        seen.append(torch.get_num_threads())
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass

    found = medians({"slow": slow, "fast": lambda: None}, repeats=3)
    assert 0.019 < found["slow"] < 1 and found["fast"] < 0.01
    assert seen == [1] * 4  # one warm-up round
    assert torch.get_num_threads() == threads
    with pytest.raises(ValueError, match="repeats must be"):
        medians({}, repeats=0)

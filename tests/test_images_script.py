"""The script for one's own images: twenty lines that take what readers have, and draw a picture of it."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from instances import generator
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "images.py").read_text(encoding="utf-8")


def blots(n=50, colours=1):
    """Bright squares on black, at two places."""
    images = 0.05 * torch.rand(n, 28, 28, colours, dtype=torch.float64, generator=generator())
    for k, image in enumerate(images):
        image[8:20, (4, 12)[k % 2] :][:, :12] += 0.9
    return images.numpy()


GIVEN = {
    "float64 (N, 1, 28, 28)": lambda: blots().reshape(-1, 1, 28, 28),
    "uint8 in colours (N, 28, 28, 3)": lambda: (255 * blots(colours=3)).astype(np.uint8),
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_it_draws_what_it_was_given(tmp_path, given):
    array = given()
    np.save(tmp_path / "digits.npy", array)
    text, found = re.subn(r"seconds=300, batch=128", "steps=40, batch=32", TEXT)
    assert found == 1
    (tmp_path / "images.py").write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    options = dict(cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    run = subprocess.run([sys.executable, "images.py"], **options)
    assert run.returncode == 0 and not run.stderr, run.stderr
    with Image.open(tmp_path / "pictures.png") as picture:
        pixels = np.asarray(picture, dtype=float) / 255
    assert pixels.shape[:2] == (2 * (8 * 29 - 1),) * 2 and (pixels.ndim == 3) == (3 in array.shape)
    # After forty steps already the middle of a picture, white in every image, is brighter than its upper edge.
    tiles = np.pad(pixels.reshape(462, 462, -1), ((0, 2), (0, 2), (0, 0))).reshape(8, 58, 8, 58, -1)[:, :56, :, :56]
    assert tiles[:, 18:38, :, 26:30].mean() > tiles[:, :12].mean() + 0.1


def test_it_has_twenty_lines():
    code = [line for line in TEXT.splitlines()[ast.parse(TEXT).body[0].end_lineno :] if line.strip()]
    assert len(code) <= 20 and max(map(len, code)) <= 120

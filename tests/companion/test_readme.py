"""README: short, with links that lead somewhere and an example that does what it says."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", readme(), flags=re.DOTALL)


def test_it_is_read_in_one_sitting():
    assert len(readme().encode()) <= 8192


def test_every_link_within_the_repository_leads_somewhere():
    for page in ("README.md", "CONTRIBUTING.md", "ATTRIBUTION.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("http")]
        headings = {
            re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        }
        missing = [link for link in links if not (link[1:] in headings if link.startswith("#") else (ROOT / link).exists())]
        assert missing == [], page
    assert readme().count("](notebooks/") > 10


def test_every_notebook_is_in_the_map():
    assert {path.stem for path in (ROOT / "notebooks").glob("[0-9]*.py")} == set(
        re.findall(r"^\| \[(\d\d[a-z]?_\w+)\]", readme(), re.MULTILINE)
    )


def test_the_example_does_what_it_says():
    block, script = blocks()
    assert (
        script == (ROOT / "docs" / "images.py").read_text(encoding="utf-8").split('"""')[2].lstrip()
    )  # it has a test of its own
    *_, last = lines = block.strip().splitlines()
    assert sum(not line.startswith(("import", "from")) and bool(line) for line in lines) <= 10
    names = {}
    exec(block, names)
    expression, numbers = last.split("#")
    reached, floor, start = map(float, re.findall(r"\d+\.\d+", numbers))
    distance, toy, rng = names["energy_distance"], names["toy"], names["rng"]
    # The example has a seed, but another processor rounds otherwise.
    assert abs(eval(expression, names) - reached) < 0.02
    assert abs(distance(toy.moons(2000, generator=rng), toy.moons(2000, generator=rng)) - floor) < 0.02
    assert abs(distance(toy.eight_gaussians(2000, generator=rng), toy.moons(2000, generator=rng)) - start) < 0.2

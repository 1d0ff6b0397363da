import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_link_within_the_repository_leads_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("http")]
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_numbers_in_the_example_are_what_it_computes():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names = {}
    exec(block, names)
    printed = re.findall(r"^(\w+\(p, q\)) +# ([\d.]+):", block, flags=re.MULTILINE)
    assert len(printed) == 2
    for expression, number in printed:
        assert abs(eval(expression, names).item() - float(number)) < 1e-4
    matrix = names["monge_map"](names["p"], names["q"]).matrix
    flow = names["fm_flow"](names["p"], names["q"], 1.0).matrix
    assert (matrix - matrix.mT).abs().max() < 1e-12 < 1e-3 < (flow - flow.mT).abs().max()

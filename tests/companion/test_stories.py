"""The form of the stories: every rule of tests/story_form.py for every story, and for each rule a story that breaks it."""

import json
import re

import pytest
import story_form
from PIL import Image
from story_form import ROOT, Story

from dynot_lite.companion.ledger import Claim

# A story has its proofs beside it; 06, 09 and 10 have not been told yet.
NAMES = [f"{k:02}" for k in range(6)]
FILES = {path.stem for path in (ROOT / "notebooks").glob("*.py")}
STORIES = sorted(name for name in FILES if name[:2] in NAMES or (ROOT / "notebooks" / "proofs" / f"{name}.py").exists())
PROOFS = sorted({Story(name).proof.stem for name in STORIES})  # 05b, a second story of 05, shares those of the first


def test_the_stories_are_there():
    assert set(NAMES) <= {name[:2] for name in STORIES} and "05b_given_snapshots" in STORIES
    assert [name[:2] for name in PROOFS][: len(NAMES)] == NAMES


@pytest.mark.parametrize("rule", story_form.RULES)
@pytest.mark.parametrize("name", STORIES)
def test_form(name, rule):
    assert story_form.RULES[rule](Story(name)) == [], f"python tests/story_form.py {name}"


@pytest.mark.parametrize("name", STORIES)
def test_every_decimal_of_the_prose_is_printed_above_it(name):
    story = Story(name)
    if story.outputs is None:
        pytest.skip(f"its stored outputs are not of a full run of this code: record it, or set {story_form.RUNS}")
    assert story_form.decimals(story) == []


@pytest.mark.parametrize("name", PROOFS)
def test_proofs_name_colours_by_their_role(name):
    source = (ROOT / "notebooks" / "proofs" / f"{name}.py").read_text(encoding="utf-8")
    assert story_form.colours(source) == []


# ------------------------------------------------------------------------------------------------------ a story that keeps all

TALE = (
    f"""\
# %% [markdown]
# # How far is it?
#
# **You will see** a walk. **You need** feet. **Minutes:** two. Proofs: [proofs/00_walk](proofs/00_walk.ipynb).

# %% [markdown]
# ![A line of dots that goes from left to right](../figures/00_walk/path.png)

# %% tags=["parameters"]
preset = "quick"
seed = 0

# %% tags=["install"]
{story_form.INSTALL}

# %%
import torch

from dynot_lite.companion import say, show, start

start("00_walk", preset=preset, seed=seed)
g = torch.Generator().manual_seed(seed)
"""
    + "".join(
        f"""
# %% [markdown]
# ## {k}. A step
#
# One step is short. **Guess.** How long: 0.7 or 0.9?

# %% tags=["copy"]
step{k} = torch.randn(3, generator=g)

# %%
figure = step{k}
show(figure, "{"path" if k == 1 else f"path_{k}"}", alt="A line that goes from left to right.")
say("length 0.812, share 0.31")

# %% [markdown]
# It is 0.81, by 31 %. Section 1.7 says more.
#
# **Change this.** Walk on: 0.99.
#
# *Why: [proofs/00](proofs/00_walk.ipynb), section {k}.*
"""
        for k in range(1, 5)
    )
    + """
# %% [markdown]
# **Where it stops working.** After 4 steps.
#
# ## What to remember
#
# Walks are long. Steps are $1.5$ short. Feet hurt!
#
# ## Change this
#
# 1. Go. 2. is no item.
# 2. Stay at 0.33.
# 3. Come.
#
# ## Problems
#
# [PS1](assignments/PS1_x.ipynb), parts 1 (of 7) and 2.
#
# ## Proofs and limits
#
# [proofs/00_walk](proofs/00_walk.ipynb).
"""
)
PROOF = "# %% [markdown]\n# # Walks\n#\n# The story: [00_walk](../00_walk.ipynb).\n#\n" + "".join(
    f"# ## {k}. Proof\n" for k in range(1, 5)
)


@pytest.fixture
def tell(tmp_path, monkeypatch):
    """A story with changes, in a repository of its own."""
    for folder in ("notebooks/proofs", "notebooks/assignments", "figures/00_walk"):
        (tmp_path / folder).mkdir(parents=True)
    picture = Image.new("P", (100, 40))
    picture.save(tmp_path / "figures" / "00_walk" / "path.png")
    moving = [Image.new("RGB", (500, 40), (6 * k, 0, 0)) for k in range(41)]
    moving[0].save(tmp_path / "figures" / "00_walk" / "path.gif", save_all=True, append_images=moving[1:])
    (tmp_path / "notebooks" / "assignments" / "PS1_x.py").write_text("# ## Part 1. A\n# ## Part 2. B\n", encoding="utf-8")

    def write(*changes, proof=PROOF):
        tale = TALE
        for before, after in changes:
            assert before in tale, before
            tale = tale.replace(before, after, 1)
        (tmp_path / "notebooks" / "00_walk.py").write_text(tale, encoding="utf-8")
        (tmp_path / "notebooks" / "proofs" / "00_walk.py").write_text(proof, encoding="utf-8")
        return Story("00_walk", tmp_path)

    return write


def test_the_good_story_keeps_every_rule(tell):
    assert {name: found for name, rule in story_form.RULES.items() if (found := rule(tell()))} == {}


WRONG = [
    ("opening", ("# # How far is it?", "# # How far"), "the title is no question: # How far"),
    ("opening", ("**Minutes:** two. ", ""), "does not say how many minutes"),
    ("opening", ("Proofs: [proofs/00_walk](proofs/00_walk.ipynb).", ""), "does not link to proofs/00_walk.ipynb"),
    ("hero", ("# ![A line", "# See ![A line"), "the second cell is not"),
    ("hero", ("figures/00_walk/path.png", "figures/01_run/path.png"), "the second cell is not"),
    ("hero", ('"path"', '"other"'), "the hero picture is not made here"),
    ("hero", ("figures/00_walk/", "figures/proofs/01_run/"), "the second cell is not"),
    ("hero", ("figures/00_walk/", "figures/proofs/00b_run/"), "of a notebook that does not exist: proofs/00b_run"),
    ("hero", ("figures/00_walk/", "figures/proofs/00_walk/"), "the hero picture is not made in proofs/00_walk"),
    ("installation", ('tags=["install"]', "tags=[]"), "the second cell of code"),
    ("installation", ("[notebooks]", ""), "the second cell of code"),
    ("installation", ('start("00_walk"', 'start("00_run"'), "the third cell of code does not call start"),
    ("outline", ("# ## 4. A step", "# ## A step"), "it has 3 numbered sections"),
    ("outline", ("# ## 4. A step", "# ## 5. A step"), "not numbered"),
    ("outline", ("# ## Problems", "# ## Exercises"), "it does not end with"),
    (
        "guesses",
        ('**Guess.** How long: 0.7 or 0.9?\n\n# %% tags=["copy"]', "**Guess.** Far?\n\n# %% [markdown]"),
        "no code follows",
    ),
    ("changes", ("# 3. Come.\n", ""), "has 2 exercises"),
    ("ending", ("Feet hurt!", "Feet hurt! And shoes."), "has 4 sentences"),
    ("ending", ("# [PS1](assignments/PS1_x.ipynb), parts 1 (of 7) and 2.", "# None."), "links to no problem set"),
    ("ending", ("parts 1 (of 7) and 2", "parts 1 and 3"), "PS1_x has no part 3"),
    ("ending", (", parts 1 (of 7) and 2", ""), "PS1_x has no part (none is named)"),
    ("ending", ("# [proofs/00_walk](proofs/00_walk.ipynb).\n", ""), "“Proofs and limits” does not link"),
    ("reasons", ("# *Why: [proofs/00](proofs/00_walk.ipynb), section 2.*\n", ""), "section 2. A step does not say"),
    ("reasons", ("section 3.*", "section 9.*"), "proofs/00_walk has no section 9"),
    ("limits", ("**Where it stops working.** After 4 steps.", "The end."), "it does not say"),
    ("limits", ("After 4 steps", "After many steps"), "has no number"),
    ("sizes", ("One step is short.", "One step is short. " + "word " * 300), "words before the first picture"),
    ("sizes", ("# Walks are long.", "# Walks are long" + " word" * 1800 + "."), "words, more than 1800"),
    ("sizes", ("figure = step1", "\n".join(f"figure = step1 + {k}" for k in range(31))), "lines of code up to the first"),
    ("sizes", ("figure = step4", "\n".join(f"figure = step4 + {k}" for k in range(250))), "lines of code, more than 250"),
    ("cells", ("figure = step4", "\n".join(f"figure = step4 + {k}" for k in range(25))), "a cell has 27 lines"),
    ("cells", ("step2 =", "\n".join(["pass"] * 10) + "\nstep2 ="), "a cell to copy has 11 lines"),
    ("cells", ("step2 = torch.randn(3", "step2 = torch.randn(len(figure)"), "needs ['figure']"),
    ("cells", ("step2 = torch.randn(3", "step2 = torch._C.f(3"), "a cell to copy uses ['_C']"),
    (
        "functions",
        ("figure = step3", "def draw_f():\n" + "    a = 1\n" * 16 + "\n\nslide(figure)"),
        "draw_f has 16 lines, more than 15",
    ),
    ("functions", ("figure = step3", "def f():\n" + "    a = 1\n" * 6 + "\n\nfigure = step3"), "f has 6 lines, more than 5"),
    ("conduct", ("randn(3, generator=g)", "randn(3)"), "a draw without a generator: torch.randn(3)"),
    ("conduct", ("figure = step3", "assert g"), "an assert: assert g"),
    ("conduct", ("figure = step3", 'figure = step3.plot(color="red")'), "a literal colour"),
    ("conduct", ("figure = step3", 'figure = step3.plot(c="#aabbcc")'), "a literal colour"),
    ("conduct", ("figure = step3", "figure = COLOURS"), "a literal colour: COLOURS"),
    ("conduct", ("figure = step3", "import time"), "a clock: import time"),
    ("phrases", ("Feet hurt!", "Clearly feet hurt!"), "“Clearly”"),
    ("phrases", ("# It is 0.81", "# > **Note.** Ah.\n#\n# It is 0.81"), "a box that is no erratum: > **Note.** Ah."),
    ("phrases", ("# It is 0.81", "# So\n# $$a$$\n# It is 0.81"), "a displayed formula without empty lines"),
    ("phrases", ("figure = step3", 'errata.box("N-99")'), "there is no erratum N-99"),
    ("pictures", ("A line of dots that goes from left to right", "A line"), "no alternative text of a sentence"),
    ("pictures", ("00_walk/path.png", "00_walk/absent.png"), "absent.png does not exist"),
    ("pictures", ("00_walk/path.png", "00_walk/path.gif"), "has 41 frames, more than 40"),
    ("pictures", ("00_walk/path.png", "00_walk/path.gif"), "has 500 pixels, more than 480"),
    ("pictures", ("00_walk/path.png)", "00_walk/path.gif)\n#\n# Ah"), "does not stand in a cell of its own"),
]


@pytest.mark.parametrize(("rule", "change", "complaint"), WRONG, ids=[f"{rule}-{k}" for k, (rule, *_) in enumerate(WRONG)])
def test_each_fault_of_a_story_is_found(tell, rule, change, complaint):
    found = story_form.RULES[rule](tell(change))
    assert any(complaint in one for one in found), found


def test_too_few_guesses_and_changes_are_found(tell):
    assert story_form.guesses(tell(*[("**Guess.** ", "")] * 2)) == ["it has 2 guesses, fewer than 3"]
    assert story_form.changes(tell(*[("**Change this.** ", "")] * 3)) == ["it has 1 times **Change this.**, fewer than 2"]


def test_a_proof_that_is_missing_or_does_not_link_back_is_found(tell):
    story = tell(proof="# %% [markdown]\n# # Walks\n")
    assert "the first cell of proofs/00_walk does not link back to ../00_walk.ipynb" in story_form.opening(story)
    story.proof.unlink()
    assert "notebooks/proofs/00_walk.py does not exist" in story_form.opening(story)


def test_a_story_may_open_with_a_picture_of_its_proofs(tell):
    made = PROOF + """\n# %%\nshow(figure, "path", alt="A line that goes from left to right.")\n"""
    assert story_form.hero(tell(("figures/00_walk/", "figures/proofs/00_walk/"), proof=made)) == []


def test_a_second_story_of_a_number_shares_the_proofs_of_the_first(tell):
    home = tell().home
    (home / "notebooks" / "00b_run.py").write_text(TALE, encoding="utf-8")
    second = Story("00b_run", home)
    assert second.number == "00B" and second.proof == Story("00_walk", home).proof
    assert story_form.opening(second) == ["the first cell of proofs/00_walk does not link back to ../00b_run.ipynb"]
    assert story_form.ending(second) == []
    assert Story("01_ride", home).proof.name == "01_ride.py"
    (home / "notebooks" / "proofs" / "00b_run.py").write_text(PROOF, encoding="utf-8")
    assert second.proof.name == "00b_run.py"


def test_claims_of_a_wrong_form_are_found(tell):
    good = {"at_least": 0.0, "at_most": 1.0}
    registered = {f"S00-{k}": Claim(f"S00-{k}", "00_walk", "s", "s", "rate", **good) for k in range(1, 9)}
    assert story_form.claims(tell(), registered) == []
    registered["S00-8"] = Claim("S00-8", "00_walk", "s", "s", "rate", at_most=1.0)
    registered["OT-1"] = Claim("OT-1", "00_walk", "s", "s", "rate", **good)
    complaints = ["it has 9 claims, more than 8", "OT-1 is not of the form S00-k", "S00-8 has no bound on both sides"]
    assert sorted(story_form.claims(tell(), registered)) == sorted(complaints)


# -------------------------------------------------------------------------------------------------------------- decimals


@pytest.mark.parametrize(
    ("prose", "said"),
    [
        ("It is 0.81 by 31 %.", ["0.81", "31"]),
        (r"The chain $1.12\le1.133\le7$, at 99.9\,\%.", ["1.12", "1.133", "99.9"]),
        ("**Guess.** Is it 0.1?\n\nIt is −0.2.", ["0.2"]),
        ("It is 0.3. **Change this.** Then 0.4.\n\n**Trap.** Not 0.5.", ["0.3", "0.5"]),
        ("`epsilon=0.1`, [x 0.2](y0.3), section 7.4, sections 7.1 and 7.2, arXiv 2510.27385v1.", []),
        ("## Change this\n\n1. Then 0.4.\n\n## Problems\n\n0.6", ["0.6"]),
        ("from 800 to 1,000 colours, 1.2e-3 or 4e-6", ["1.2e-3", "4e-6"]),
    ],
)
def test_decimals_of_a_prose(prose, said):
    assert story_form.quoted(prose) == said


@pytest.mark.parametrize(
    ("decimal", "said", "known"),
    [
        ("0.81", "length 0.812", True),
        ("0.81", "length 0.81", True),
        ("0.81", "length 0.816", False),
        ("0.812", "length 0.81", False),
        ("0.81", "length 10.81", False),
        ("31", "share 0.312", True),
        ("31", "31%", True),
        ("31", "share 0.42", False),
        ("99.9", "share 0.999", False),
        ("0.05", "5e-2", True),
        ("1.2e-3", "value 0.00123", True),
        ("1.2e-3", "value 0.00126", False),
        ("4e-6", "measured 3.6e-06", True),
    ],
)
def test_a_decimal_is_printed_if_a_number_rounds_to_it(decimal, said, known):
    assert story_form.is_printed(decimal, said) == known


def test_decimals_are_found_that_no_cell_above_prints(tell, monkeypatch):
    story = tell(("# It is 0.81, by 31 %.", "# It is 0.82, by 31 %."), ("# Walks are long.", "# Walks are 0.6 long."))
    said = ["length 0.812, share 0.31" if "say(" in cell.source else "" for cell in story.cells if cell.cell_type == "code"]
    monkeypatch.setattr(Story, "outputs", said)
    assert [found.split(" is ")[0] for found in story_form.decimals(story)] == ["0.82", "0.6"]
    monkeypatch.setattr(Story, "outputs", ["length 0.812, share 0.31"] + [""] * (len(said) - 1))
    assert [found.split(" is ")[0] for found in story_form.decimals(tell())] == []
    monkeypatch.setattr(Story, "outputs", [""] * (len(said) - 1) + ["length 0.812, share 0.31"])
    below = tell(*[('say("length 0.812, share 0.31")', "say(1)")] * 4)
    assert [found.split(" is ")[0] for found in story_form.decimals(below)] == ["0.81", "31"] * 3


def test_formulas_are_one_word_and_code_none():
    assert story_form.words("# The $x + y$ of\n\n$$a\n= b$$\n\n[two words](address), `code x` is long-winded.") == 9
    assert re.fullmatch(r"\d+", str(story_form.lines("a\n\n# b\n"))) and story_form.lines("a\n\n# b\n") == 2


def test_the_story_of_images_quotes_the_table_of_the_experiment():
    quoted = Story("08_semidiscrete_flow_matching", ROOT)
    text = "\n".join(cell.source for cell in quoted.cells if cell.cell_type == "markdown")
    stored = json.loads((ROOT / "notebooks" / "proofs" / "08b_on_images.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in stored["cells"] for output in cell.get("outputs", [])]
    tables = ["".join(output.get("data", {}).get("text/markdown", "")) for output in outputs]

    def measured(table: str, row: str, number: str) -> list[str]:
        (found,) = (re.findall(rf"^\| {row} \|(.*)\|$", one, re.MULTILINE)[0] for one in tables if table in one)
        return re.findall(number, found)

    for name, row in {
        "independent pairs": "independent",
        "batches of 256 (one seed)": "batches of 256",
        "semidiscrete pairs": "semidiscrete",
    }.items():
        (line,) = re.findall(rf"^\| {re.escape(name)} \|(.*)\|$", text, re.MULTILINE)
        assert re.findall(r"\d+", line) == measured("| pairs | 1 | 2 | 4 | 8 | 32 |", row, r"(\d+)(?: \(\d+–\d+\))? "), name
    after_32 = {row: measured("guidance 2", row, r"(\d+)%")[3] for row in ("one for all", "one per class", "independent")}
    said = re.search(
        r"in (\d+) of 100 digits from one coupling for all, in (\d+) from one per class, in (\d+) from independent",
        " ".join(text.split()),
    )
    assert said and list(said.groups()) == [after_32[row] for row in ("one for all", "one per class", "independent")]

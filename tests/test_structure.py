"""The house: who imports whom, read from the files and not from memory."""

import ast
import itertools
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dynot_lite"
# An import runs only towards rooms that stand before it here (or within a room).
ROOMS = (
    "_base",
    "paths",
    "laws",
    "grids",
    "couplings",
    "potentials",
    "matching",
    "datasets",
    "metrics",
    "plots",
    "companion",
    "course",
    "train",
    "cli",
)
LONGEST = 450
# The room that only courses need has a budget of its own. The rest grew by 2 600 lines for images: data, networks, the command
# that trains on pictures of one's own, a search that suits a GPU.
IN_ALL = {"course": 6_850, "elsewhere": 16_600}


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(source: str, module: str, known=FILES):
    """(imported module, imported name or None) of every import of the package in ``source``, also inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names if alias.name.split(".")[0] == "dynot_lite")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports within the package are absolute"
            if node.module and node.module.split(".")[0] == "dynot_lite":
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    yield (whole, None) if whole in known else (node.module, alias.name)


def room(module: str) -> str | None:
    """The room of a module; None for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__main__" else None


def complaints(files: dict[str, str]) -> list[str]:
    """What is wrong with the imports of ``files``, module name to source."""
    found, arrows = [], {}
    for module, source in files.items():
        for target, name in imports(source, module, files):
            here, there = room(module), room(target)
            if target != module:
                arrows.setdefault(module, set()).add(target)
            if here and there and ROOMS.index(there) > ROOMS.index(here):
                found.append(f"{module} imports {target}, from a room that comes after its own")
            private = [part for part in [*target.split(".")[2:], name or ""] if part.startswith("_")]
            if private and here != there:
                found.append(f"{module} imports the private {private[0]} of {target}")
    for start in arrows:
        seen, waiting = set(), list(arrows[start])
        while waiting:
            module = waiting.pop()
            if module == start:
                found.append(f"{start} imports itself in a circle")
                break
            if module not in seen:
                seen.add(module)
                waiting += arrows.get(module, ())
    return found


def test_every_file_is_in_a_room_and_rooms_import_only_those_before_them_without_cycles_or_private_names():
    assert {room(module) for module in FILES} - {None} == set(ROOMS)
    assert complaints({module: path.read_text(encoding="utf-8") for module, path in FILES.items()}) == []


@pytest.mark.parametrize(
    "files, complaint",
    [
        ({"dynot_lite.laws.a": "from dynot_lite.couplings.b import f", "dynot_lite.couplings.b": ""}, "comes after its own"),
        ({"dynot_lite.laws.a": "def f():\n    import dynot_lite.grids.b", "dynot_lite.grids.b": ""}, "comes after its own"),
        (
            {"dynot_lite.grids.a": "from dynot_lite.grids import b", "dynot_lite.grids.b": "from dynot_lite.grids.a import f"},
            "circle",
        ),
        ({"dynot_lite.grids.a": "from dynot_lite.laws.b import _f", "dynot_lite.laws.b": ""}, "private _f"),
        ({"dynot_lite.grids.a": "from dynot_lite.laws import _b", "dynot_lite.laws._b": ""}, "private _b"),
    ],
)
def test_each_kind_of_wrong_import_is_found(files, complaint):
    assert any(complaint in line for line in complaints(files))


def test_no_file_is_long_and_the_package_does_not_grow():
    lines = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in FILES.items()}
    assert {module: count for module, count in lines.items() if count > LONGEST} == {}
    in_course = sum(count for module, count in lines.items() if module.startswith("dynot_lite.course"))
    found = {"course": in_course, "elsewhere": sum(lines.values()) - in_course}
    assert all(found[room] <= most for room, most in IN_ALL.items()), found


def test_numbers_are_drawn_bars_shown_and_checkpoints_written_in_one_place():
    owners = {
        r"torch\.(rand|randn|randint|randperm|multinomial)\(|\.(normal_|uniform_|bernoulli_|exponential_)\(": "_base.randomness",
        r"\btqdm\b": "_base.progress",
        r"torch\.(save|load)\(": "_base.checkpoints",
        r"\blinprog\b|\bot\.(emd|emd2|lp|sinkhorn)\b": "couplings.plans",
    }
    for pattern, owner in owners.items():
        users = {module.removeprefix("dynot_lite.") for module, path in FILES.items() if re.search(pattern, _code(path))}
        users = {user for user in users if not user.startswith("course.oracle.")}  # an oracle is another solver on purpose
        assert users <= {owner}, pattern


def _code(path: Path) -> str:
    """The source without strings, where documentation may well name such a function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.unparse(tree)


def test_every_module_has_tests_in_the_folder_of_its_room():
    tested = {
        room: " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests" / room).glob("*.py"))
        for room in ROOMS
        if (ROOT / "tests" / room).is_dir()
    }
    assert tested.keys() == {room for room in ROOMS if (PACKAGE / room).is_dir()}
    rooms = {
        room: [path.stem for path in (PACKAGE / room).glob("[a-z]*.py")] for room in tested if room not in ("companion", "course")
    }
    missing = [
        f"{room}.{module}"
        for room, modules in rooms.items()
        for module in modules
        if not re.search(rf"\b{module}\b", tested[room])
    ]
    assert missing == []


def test_the_doors_of_every_room_lead_to_all_its_modules():
    import dynot_lite

    for name in ROOMS:
        if name.startswith("_"):
            continue
        here = getattr(dynot_lite, name)
        for path in (
            (PACKAGE / name).glob("[a-z]*.py") if (PACKAGE / name).is_dir() and name not in ("companion", "course") else ()
        ):
            assert getattr(here, path.stem).__name__ == f"dynot_lite.{name}.{path.stem}"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dynot_lite.nothing  # noqa: B018


def test_a_room_of_the_package_stands_in_the_order_that_its_documentation_gives():
    import dynot_lite

    said = re.findall(r"``(\w+)``", dynot_lite.__doc__[dynot_lite.__doc__.index("Each folder") :])
    assert said == [room for room in ROOMS if room != "_base"]
    assert list(itertools.dropwhile(lambda room: room != "companion", ROOMS)) == ["companion", "course", "train", "cli"]


def test_the_tree_stays_small():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    if not files:
        pytest.skip("no git clone")
    sizes = sorted((path.stat().st_size, path.relative_to(ROOT).as_posix()) for path in files if path.is_file())
    assert sum(size for size, _ in sizes) < 16e6, sizes[-10:]


def test_the_top_level_holds_what_the_design_names_and_nothing_else():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    top = {name.split("/")[0] for name in listed.stdout.split("\0") if name}
    if not top:
        pytest.skip("no git clone")
    folders = {"notebooks", "docs", "dynot_lite", "tests", "figures", "benchmarks", ".ci", ".github"}
    files = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "CITATION.cff", "ATTRIBUTION.md", "run.py"}
    made_with = {"pyproject.toml", "constraints.txt", "hashes.txt", "peers.txt", "environment.yml"}
    assert top <= folders | files | made_with | {".pre-commit-config.yaml", ".gitignore", ".gitattributes"}

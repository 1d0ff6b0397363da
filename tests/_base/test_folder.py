"""Where data are looked for: one folder, named by a variable or beside the package."""

from pathlib import Path

from dynot_lite._base import folder


def test_the_folder_is_the_one_of_the_variable_or_that_of_a_clone(tmp_path, monkeypatch):
    monkeypatch.setenv("DYNOT_DATA", str(tmp_path / "named"))
    assert folder.data_folder() == tmp_path / "named"  # whether it exists or not: who reads it says so
    for unset in (lambda: monkeypatch.setenv("DYNOT_DATA", ""), lambda: monkeypatch.delenv("DYNOT_DATA")):
        unset()
        monkeypatch.setattr(folder, "HERE", tmp_path / "data")
        assert folder.data_folder() is None
        (tmp_path / "data").mkdir(exist_ok=True)
        assert folder.data_folder() is None  # beside an installed package, which no clone is, it is another's
        (tmp_path / "pyproject.toml").touch()
        assert folder.data_folder() == tmp_path / "data"
        (tmp_path / "data").rmdir()
        (tmp_path / "pyproject.toml").unlink()


def test_beside_the_package_is_the_root_of_the_repository():
    assert Path(__file__).resolve().parents[2] / "data" == folder.HERE

"""Names in a config find their objects, and a wrong name says what was meant."""

import subprocess
import sys

import pytest

from ftjax import errors, lookup


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `house` with two modules, one of which needs something that is not installed."""
    folder = tmp_path / "house"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""A house."""\n')
    (folder / "preference.py").write_text(
        "import math\n\nSIZE = 3\n\n\ndef dpo():\n    return 'dpo'\n\n\nclass Pair:\n    part = 7\n\n\n"
        "def _private():\n    pass\n"
    )
    (folder / "broken.py").write_text("import not_installed_at_all\n\n\ndef thing():\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "house"
    for name in [name for name in sys.modules if name.split(".")[0] == "house"]:
        del sys.modules[name]


def test_a_name_is_a_module_and_an_attribute(package):
    assert lookup.lookup(package, "preference.dpo")() == "dpo"
    assert lookup.lookup(package, "preference.SIZE") == 3


def test_a_name_with_a_colon_reaches_any_module(package):
    assert lookup.lookup("ftjax", f"{package}.preference:Pair.part") == 7


@pytest.mark.parametrize("name", ["prefrence.dpo", "preference.dpoo", "preference.dp", "dpo"])
def test_a_misspelt_name_is_answered_with_the_nearest_and_all_known(package, name):
    with pytest.raises(errors.UserError, match=r"Did you mean 'preference.dpo'\? Known: .*preference.Pair") as caught:
        lookup.lookup(package, name)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["", ".", "preference", "preference.", "preference.math", "preference._private", "..preference.dpo", ":", "a:"],
)
def test_what_a_module_imports_or_hides_is_no_name_of_it(package, name):
    with pytest.raises(errors.UserError):
        lookup.lookup(package, name)


@pytest.mark.parametrize(
    "name", ["no_such_module:thing", "house.no_such:thing", "house.preference:dpoo", ".relative:x"]
)
def test_a_wrong_name_of_a_users_own_code_is_one_line(package, name):
    with pytest.raises(errors.UserError) as caught:
        lookup.lookup(package, name)
    assert name.split(":")[1] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["broken.thing", "house.broken:thing"])
def test_a_missing_dependency_is_not_taken_for_a_typo(package, name):
    with pytest.raises(ModuleNotFoundError, match="not_installed_at_all"):
        lookup.lookup(package, name)


def test_the_catalogue_runs_no_module(package):
    assert lookup.catalogue(package) == ["broken.thing", "preference.Pair", "preference.SIZE", "preference.dpo"]
    assert "house.broken" not in sys.modules
    assert "house.preference" not in sys.modules


def test_modules_are_found_by_name(package):
    assert lookup.module(package, "preference").SIZE == 3
    assert lookup.module("ftjax", ":house.preference").SIZE == 3
    with pytest.raises(errors.UserError, match="Did you mean 'preference'"):
        lookup.module(package, "preferences")


@pytest.mark.parametrize("module", ["lookup", "config", "runs.folder", "runs.writers", "runs.plots", "runs.card"])
def test_importing_it_imports_neither_jax_nor_wandb(module):
    code = (
        f"import sys, ftjax.{module}; print([name for name in ('jax', 'wandb', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""What ``dvbench plugins new`` writes is a package whose plugin works, or nothing at all."""

from __future__ import annotations

import ast
import errno
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from dvbench.api import KINDS
from dvbench.errors import UsageError, WorkError
from dvbench.registry import Registry
from dvbench.scaffold import create
from dvbench.testing import examine

# What keeps the checks of a network short.
SHORT = {"backbone": ({"width": 8, "depth": 2}, ((16, 8),))}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def package(kind, tmp_path, monkeypatch):
    """A package of each kind, whose module can be imported."""
    directory = tmp_path / f"dvbench-my-{kind}"
    create(directory, kind)
    monkeypatch.syspath_prepend(directory)
    yield directory
    for module in [name for name in sys.modules if name.startswith("dvbench_my_")]:
        del sys.modules[module]


@pytest.fixture
def registry(kind, package):
    return Registry({package.name: importlib.import_module(f"dvbench_my_{kind}")}, entry_points=[])


def files(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file())


def test_its_plugin_is_found_and_does_all_that_is_asked(kind, registry):
    assert registry.find(kind, f"my-{kind}").distribution == f"dvbench-my-{kind}"
    cls = registry.load(kind, f"my-{kind}")
    assert cls.__name__ == f"My{kind.capitalize()}"
    options, ladders = SHORT.get(kind, ({}, None))
    report = examine(kind, cls, options, ladders=ladders)
    assert not report.failed, report
    assert not registry.problems


def test_it_is_tried_with_its_defaults_and_with_another_option(kind, package, registry):
    pytest_options = tomllib.loads((package / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    (plain, other) = (line.split() for line in pytest_options["dvbench_plugins"])
    assert plain == other[:2] == [kind, f"my-{kind}"]
    given = dict(word.split("=") for word in other[2:])
    options = registry.options(kind, plain[1])
    checked = registry.validate(kind, plain[1], {key: yaml.safe_load(value) for key, value in given.items()})
    assert given
    assert all(checked[key] != options[key].default for key in given)


def test_its_names_agree(kind, package):
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    assert project["name"] == package.name
    assert project["dependencies"] == ["dvbench"]
    assert project["entry-points"]["dvbench"] == {f"my-{kind}": f"dvbench_my_{kind}"}
    assert [str(path.relative_to(package)) for path in files(package)] == [
        "README.md",
        f"dvbench_my_{kind}/__init__.py",
        f"dvbench_my_{kind}/{kind}.py",
        "pyproject.toml",
        f"tests/test_my_{kind}.py",
    ]
    assert f"my-{kind}" in (package / "README.md").read_text()


def test_its_code_imports_only_what_is_public_and_fits_a_line(package):
    public = {"dvbench", "dvbench.api", "dvbench.backbone", "dvbench.process", "dvbench.testing", "dvbench.errors"}
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text())
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {module for module in modules if module.startswith("dvbench")} <= public
        assert ast.get_docstring(tree)
        assert max(map(len, path.read_text().splitlines())) <= 88


@pytest.mark.parametrize(
    ("directory", "name", "distribution", "module", "plugin", "class_name"),
    [
        ("corner", None, "dvbench-corner", "dvbench_corner", "corner", "Corner"),
        ("dvbench-db4-x", None, "dvbench-db4-x", "dvbench_db4_x", "db4-x", "Db4X"),
        ("somewhere", "corner", "dvbench-corner", "dvbench_corner", "corner", "Corner"),
        ("somewhere", "dvbench-corner", "dvbench-corner", "dvbench_corner", "corner", "Corner"),
        ("dvbench-bases", "LeGall", "dvbench-bases", "dvbench_bases", "LeGall", "LeGall"),
        ("dvbench-my bases!", "corner", "dvbench-corner", "dvbench_corner", "corner", "Corner"),
    ],
)
def test_names_follow_from_the_directory_s_or_from_the_one_given(
    tmp_path, directory, name, distribution, module, plugin, class_name
):
    written = create(tmp_path / directory, "basis", name)
    assert sorted(written) == files(tmp_path)
    project = tomllib.loads((tmp_path / directory / "pyproject.toml").read_text())["project"]
    assert project["name"] == distribution
    assert project["entry-points"]["dvbench"] == {plugin: module}
    assert f'target="{module}.basis:{class_name}"' in (tmp_path / directory / module / "__init__.py").read_text()


@pytest.mark.parametrize(
    ("directory", "kind", "name", "told"),
    [
        ("new", "bases", None, "no kind of plugin called 'bases': did you mean 'basis'"),
        ("new", "basis", "", "cannot be called ''"),
        ("new", "basis", "4db", "cannot be called '4db': use letters.* a letter first"),
        ("new", "basis", "db_4", "cannot be called 'db_4'"),
        ("new", "basis", "db-", "cannot be called 'db-'"),
        ("new", "basis", "d--b", "cannot be called 'd--b'"),
        ("new", "basis", "../db", "cannot be called"),
        ("new", "basis", "db\n", "cannot be called"),
        ("new", "basis", "größe", "cannot be called"),
        ("my.basis", "basis", None, r"cannot be called 'my\.basis'.*--name"),
        ("new", "basis", "none", "class None"),
        ("new", "basis", "basis", "class Basis"),
        ("new", "schedule", "sequence", "class Sequence"),
        ("new", "sampler", "process", "class Process"),
        ("new", "detector", "value-error", "class ValueError"),
        ("new", "basis", "dct", "dvbench itself has a basis called 'dct': choose another"),
        ("dvbench-cats", "dataset", None, "dvbench itself has a dataset called 'cats'"),
        ("file", "basis", "corner", "file is a file: name a new directory"),
        ("full", "basis", "corner", "full is not empty: name a new directory"),
        ("file/new", "basis", "corner", r"file/new cannot be written \(.*\): choose another place"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(tmp_path, directory, kind, name, told):
    (tmp_path / "file").write_text("here before")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("here before")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=told) as caught:
        create(tmp_path / directory, kind, name)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_built_in_for_one_kind_is_free_for_another(tmp_path):
    assert create(tmp_path / "new", "dataset", "dct")


def test_an_empty_directory_is_filled_even_by_somebody_who_stands_in_it(tmp_path, monkeypatch):
    place = tmp_path / "dvbench-corner"
    place.mkdir()
    before = place.stat().st_ino
    monkeypatch.chdir(place)
    assert Path("pyproject.toml") in create(Path(), "basis")
    assert place.stat().st_ino == before
    assert Path("dvbench_corner/basis.py").exists()
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize(
    ("empty", "method", "working"),
    [
        (False, "write_bytes", 0),
        (False, "write_bytes", 3),
        (False, "rename", 0),
        (True, "write_bytes", 3),
        (True, "mkdir", 2),
        (True, "rename", 0),
        (True, "rename", 2),
    ],
)
def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch, empty, method, working):
    place = tmp_path / "dvbench-corner"
    if empty:
        place.mkdir()
    before = list(tmp_path.rglob("*"))
    original, calls = getattr(Path, method), []

    def failing(path, *arguments, **options):
        calls.append(path)
        if len(calls) == working + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, method, failing)
    with pytest.raises(WorkError, match=r"cannot be written \(No space left on device\)"):
        create(place, "basis")
    assert list(tmp_path.rglob("*")) == before


def test_beginning_imports_neither_jinja2_nor_torch():
    code = "import sys, dvbench.scaffold; print({'jinja2', 'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"

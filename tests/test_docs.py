"""What the documentation shows works."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

import dvbench
from benchmarks import write_pictures
from dvbench import api, hookspecs, testing
from dvbench import record as records
from dvbench.cli import cli
from dvbench.registry import registry
from dvbench.scaffold import create

ROOT = Path(__file__).parents[1]
OURS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "plugins/README.md"]
PAGES = [*OURS, *ROOT.glob("plugins/*/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_repository_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


SHOWN = [
    (page, command, shown)
    for page in PAGES
    for command, shown in re.findall(r"```console\n\$ (dvbench compare [^\n]*)\n(.*?)```", page.read_text(), re.DOTALL)
]


def test_the_readme_shows_a_comparison():
    assert "README.md" in {page.name for page, _, _ in SHOWN}


@pytest.mark.parametrize(("page", "command", "shown"), SHOWN, ids=lambda value: getattr(value, "name", None))
def test_every_table_is_what_its_command_prints_of_the_committed_records(page, command, shown):
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    run = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )

    def words(text):
        return [line.rstrip() for line in text.strip().splitlines()]

    assert words(shown) == words(run.stdout)


TABLES = [
    (page, command, shown)
    for page in PAGES
    for command, shown in re.findall(
        r"<!-- python ((?:benchmarks/|-m dvbench )[^\n]*) -->\n(.*?)<!-- end -->", page.read_text(), re.DOTALL
    )
]


def test_the_studies_the_comparison_and_the_speed_are_shown():
    assert len(TABLES) == 39


@pytest.mark.parametrize(("page", "command", "shown"), TABLES, ids=lambda value: getattr(value, "name", None))
def test_every_such_table_is_what_its_command_prints(page, command, shown):
    run = subprocess.run([sys.executable, *command.split()], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.strip() == run.stdout.strip()


@pytest.mark.parametrize("path", sorted((ROOT / "results/reference").rglob("record.json")), ids=lambda p: p.parent.name)
def test_every_committed_record_is_whole_and_was_made_by_a_committed_program(path):
    record = records.read(path)
    assert record.status == "finished"
    assert record.run_id == path.parent.name
    assert record.environment.git_commit
    assert record.environment.git_dirty is False
    # Of the runs behind a study's table, hundreds, the records alone are kept.
    assert (path.parent / "samples.png").exists() or "studies" in path.parts


EXCERPTS = [
    (page, file, code)
    for page in PAGES
    for file, code in re.findall(r"<!-- (plugins/\S+) -->\n```\w+\n(.*?)```", page.read_text(), re.DOTALL)
]


def test_the_tutorial_shows_a_package():
    assert len(EXCERPTS) >= 5


@pytest.mark.parametrize(("page", "file", "code"), EXCERPTS, ids=lambda value: Path(str(value)[:80]).name[:20])
def test_code_in_the_docs_is_that_of_the_package(page, file, code):
    assert code in (ROOT / file).read_text()


# Every hook, class and argument stands in the reference.

REFERENCE = (ROOT / "docs/plugins.md").read_text().partition("## Reference")[2]
SECTIONS = dict(re.findall(r"### (.*?)\n(.*?)(?=\n### |\Z)", REFERENCE, re.DOTALL))


def arguments(function):
    """Return the names of a function's parameters as the reference writes them, self and cls left out."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in {"self", "cls"}]
    return [f"**{p.name}" if p.kind is p.VAR_KEYWORD else p.name for p in parameters]


def missing(section, name, names):
    """Return what of a signature the section does not say: the call itself, and each argument by its name."""
    text = SECTIONS[section]
    call = f"{name}({', '.join(names)})"
    found = [] if f"`{call}" in text else [call]
    rest = text.replace(f"`{call}", "")
    return found + [argument for argument in names if f"`{argument.lstrip('*')}`" not in rest]


def public(cls):
    """Yield the methods of a class's own, and the constructor as a call of the class."""
    for name, value in vars(cls).items():
        function = getattr(value, "__func__", value)
        if inspect.isfunction(function) and (not name.startswith("_") or name == "__call__"):
            yield name, arguments(function)


@pytest.mark.parametrize("hook", [name for name in vars(hookspecs) if name.startswith("dvbench_")])
def test_every_hook_is_documented(hook):
    assert missing("Hooks", hook, arguments(getattr(hookspecs, hook))) == []


@pytest.mark.parametrize("cls", [api.Basis, api.Schedule, dvbench.Backbone, api.Sampler, api.Dataset, api.Detector])
def test_every_class_is_documented_with_its_methods_arguments_and_attributes(cls):
    section = cls.__name__
    absent = [part for name, names in public(cls) for part in missing(section, name, names)]
    if names := arguments(cls):
        absent += missing(section, section, names) if f"`{section}(" in SECTIONS[section] else [f"{section}(...)"]
    attributes = {*vars(cls).get("__annotations__", {}), *(n for n, v in vars(cls).items() if isinstance(v, property))}
    attributes |= {name for name in ("exact", "uses_uncertainty") if name in vars(cls)}
    absent += [name for name in attributes if f"`{name}`" not in SECTIONS[section]]
    assert absent == []


def test_every_optional_method_that_dvbench_asks_for_is_documented():
    source = "".join(path.read_text() for path in (ROOT / "dvbench").glob("*.py"))
    asked = set(re.findall(r"(?:getattr|hasattr)\([\w.]*(?:basis|network|sampler|dataset|detector), \"(\w+)\"", source))
    assert {"fit", "state", "load", "prepare", "uncertainty"} <= asked
    assert [name for name in asked if f"`{name}(" not in REFERENCE] == []


@pytest.mark.parametrize("name", [name for name in testing.__all__ if not name[0].isupper()])
def test_every_check_is_documented(name):
    assert missing("dvbench.testing", name, arguments(getattr(testing, name))) == []


@pytest.mark.parametrize("name", dvbench.__all__)
def test_every_public_name_is_documented(name):
    pages = "".join(page.read_text() for page in OURS)
    assert re.search(rf"`(dvbench\.|@)?{name}\b|dvbench\.{name}\b", pages)


@pytest.mark.parametrize("kind", api.KINDS)
def test_every_option_of_what_is_built_in_is_documented(kind):
    for name in registry().available(kind):
        cls = registry().load(kind, name)
        told = "".join(part.__doc__ or "" for part in cls.__mro__ if part.__module__.startswith("dvbench.builtin"))
        assert [option for option in registry().options(kind, name) if f"``{option}``" not in told] == [], name


# Every command works.


def commands(page):
    """Yield the program's commands in the blocks of a page, comments left out."""
    for kind, block in re.findall(r"```(sh|console)\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.splitlines():
            if kind == "console" and not line.startswith("$ "):
                continue  # what the command prints
            for command in line.removeprefix("$ ").partition("#")[0].split("&&"):
                words = shlex.split(command)
                if words[:1] == ["dvbench"]:
                    yield words[1:]


def placed(words, pictures):
    """Return a command that can be tried here: nothing is trained, and what stands for a place is one."""
    words = [str(ROOT / word) if word.startswith("results/reference") else word for word in words]
    words = [str(pictures) if word == "DIR" else word for word in words]
    if words[0] == "run":
        words.append("--dry-run")
    if words[0] == "compare" and "--results" not in words:
        words += ["--results", str(ROOT / "results/reference")]
    return words


def try_commands(page, tmp_path, monkeypatch):
    """Run the commands of a page one after the other, the packages of this repository being installed."""
    pictures = write_pictures(tmp_path / "pictures")
    site = tmp_path / "site"
    site.mkdir()
    create(tmp_path / "dvbench-mine", "basis")
    for package in [*(ROOT / "plugins").glob("dvbench-*"), tmp_path / "dvbench-mine"]:
        # What `pip install -e` does, without its minute: the code is on the path, the entry points beside it.
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        info = site / f"{package.name.replace('-', '_')}-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.name}\nVersion: 0.1.0\n")
        lines = [f"{name} = {module}\n" for name, module in project["entry-points"]["dvbench"].items()]
        (info / "entry_points.txt").write_text("".join(["[dvbench]\n", *lines]))
        monkeypatch.syspath_prepend(package)
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path)
    registry.cache_clear()
    try:
        for words in commands(page):
            if "RUN_ID" in " ".join(words) or words[0] == "memorised" or words[:2] == ["plugins", "new"]:
                continue
            result = CliRunner().invoke(cli, placed(words, pictures), obj={})
            assert result.exit_code == 0, (words, result.output, result.exception)
    finally:
        registry.cache_clear()


@pytest.mark.parametrize("page", OURS, ids=lambda page: page.name)
def test_every_command_in_the_docs_works(page, tmp_path, monkeypatch):
    try_commands(page, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(set(PAGES) - set(OURS)), ids=lambda page: page.parent.name)
def test_every_command_in_the_packages_docs_works(page, tmp_path, monkeypatch):
    try_commands(page, tmp_path, monkeypatch)


def test_the_findings_in_the_tutorial_are_those_that_are_printed():
    (shown,) = re.findall(
        r"```console\n\$ dvbench plugins check dct\n(.*?)```", (ROOT / "docs/plugins.md").read_text(), re.DOTALL
    )
    printed = CliRunner().invoke(cli, ["plugins", "check", "dct"], obj={}).output

    def but_for_figures(text):  # rounding is the processor's own
        return re.sub(r": [\d.e-]+ \(", ": # (", text)

    assert but_for_figures(shown) == but_for_figures(printed)


def test_there_are_commands_in_the_docs():
    assert sum(len(list(commands(page))) for page in PAGES) > 25

"""Who may import whom: data walks one way, and every file knows only the floors below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import dvbench

ROOT = Path(dvbench.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}
KNOWS = {
    "dvbench.api": {"dvbench.process"},  # for type checkers only: the annotations of Sampler
    "dvbench.backbone": set(),
    "dvbench.estimate": set(),
    "dvbench.schema": set(),
    "dvbench.migrations": set(),
    "dvbench.record": {"dvbench.errors", "dvbench.files", "dvbench.schema", "dvbench.migrations"},
    "dvbench.process": {"dvbench.api"},
    "dvbench.prediction": {"dvbench.process", "dvbench.memory"},
    "dvbench.config": {"dvbench.api", "dvbench.errors", "dvbench.presets", "dvbench.registry"},
    "dvbench.presets": {"dvbench.errors"},
    "dvbench.options": {"dvbench.errors"},
    "dvbench.registry": {
        "dvbench",
        "dvbench.hookspecs",
        "dvbench.api",
        "dvbench.errors",
        "dvbench.known",
        "dvbench.memory",
        "dvbench.offers",
        "dvbench.options",
    },
}
FORBIDDEN = {
    "dvbench.measure": (
        "dvbench.process",
        "dvbench.prediction",
        "dvbench.training",
        "dvbench.sampling",
        "dvbench.bench",
    ),
    "dvbench.report": ("torch", "dvbench.process", "dvbench.bench", "dvbench.training"),
    "dvbench.training": ("dvbench.bench", "dvbench.sampling", "dvbench.record", "dvbench.report", "dvbench.builtin"),
    "dvbench.sampling": ("dvbench.bench", "dvbench.training", "dvbench.record", "dvbench.report", "dvbench.builtin"),
}


def imports(path, *, top=False):
    """Return the modules that a file imports; with ``top``, only those that importing it imports."""
    tree = ast.parse(path.read_text())
    nodes = list(tree.body) if top else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (
                f"{node.module}.{alias.name}" for alias in node.names if f"{node.module}.{alias.name}" in MODULES
            )


def within(name, package):
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("module", KNOWS)
def test_the_lower_floors_know_only_those_below(module):
    known = {name for name in imports(MODULES[module]) if within(name, "dvbench")}
    assert known <= KNOWS[module]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_floor_looks_up(package):
    for module, path in MODULES.items():
        if within(module, package):
            seen = {name for name in imports(path) if any(within(name, other) for other in FORBIDDEN[package])}
            assert not seen, module


def test_nobody_imports_the_builtins_but_themselves():
    for module, path in MODULES.items():
        if not within(module, "dvbench.builtin"):
            assert not [name for name in imports(path) if within(name, "dvbench.builtin")], module


def test_builtins_know_the_api_the_process_and_what_networks_say_only():
    allowed = {"api", "backbone", "process", "prediction", "errors", "files", "builtin"}
    for module, path in MODULES.items():
        if within(module, "dvbench.builtin"):
            known = {name.split(".")[1] for name in imports(path) if within(name, "dvbench") and "." in name}
            assert known <= allowed, module


def test_the_command_line_imports_its_work_inside_the_commands():
    for module, path in MODULES.items():
        if within(module, "dvbench.cli"):
            light = {"dvbench.api", "dvbench.cli", "dvbench.errors", "dvbench.entry"}
            known = {name for name in imports(path, top=True) if within(name, "dvbench")}
            assert all(any(within(name, floor) for floor in light) for name in known), module

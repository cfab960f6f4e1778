"""The pytest plugin for packages with plugins: one line of configuration runs the conformance checks.

    [tool.pytest.ini_options]
    dvbench_plugins = ["basis corner", "basis corner patch=4"]

Each line is a kind, a name and the options to try it with; each becomes a test of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

INI = "dvbench_plugins"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the line of configuration."""
    parser.addini(INI, "plugins of dvbench to check: KIND NAME [OPTION=VALUE ...], one a line", "linelist", [])


def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Add a test for each plugin named, before the package's own tests, unless some of these alone are asked for."""
    config = session.config
    asked = config.args if config.args_source is config.ArgsSource.ARGS else []
    if any("::" in arg or Path(config.invocation_params.dir, arg).is_file() for arg in asked):
        return
    lines = config.getini(INI)
    items[:0] = [Conformance.from_parent(session, name=f"conformance of {line}", line=line) for line in lines]


class Conformance(pytest.Item):
    """One plugin's conformance."""

    def __init__(self, *, line: str, **rest: Any) -> None:
        super().__init__(**rest)
        self.line = line

    def runtest(self) -> None:
        """Check it; NonConformance and UsageError are failures."""
        import yaml

        from dvbench.testing import NonConformance, examine

        words = self.line.split()
        if len(words) < 2:
            raise ValueError(f"{INI} takes KIND NAME [OPTION=VALUE ...], not {self.line!r}")
        options = {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in words[2:])}
        report = examine(words[0], words[1], options)
        if report.failed:
            raise NonConformance(report)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        """Show what was found, not where in dvbench it was found out."""
        return str(getattr(excinfo.value, "report", excinfo.value))

    def reportinfo(self) -> tuple[str, None, str]:
        """Say where it stands: in the configuration."""
        return str(self.config.inipath or INI), None, self.name

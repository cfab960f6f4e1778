"""Strangers' plugins as their users meet them: listed, checked, disabled, and broken in every way."""

from __future__ import annotations

import json

import pytest
from installed import dvbench, install

from benchmarks import write_benchmark

CORNER = """
    import torch.nn.functional as F
    from dvbench import Basis, Plugin, hookimpl

    @hookimpl
    def dvbench_bases():
        return [Plugin("corner", "{module}:Corner", "keeps the upper left corner")]

    class Corner(Basis):
        def project(self, x, level):
            side = self.ladder[level + 1]
            return x[..., :side, :side]

        def embed(self, y, level):
            missing = self.ladder[level] - self.ladder[level + 1]
            return F.pad(y, (0, missing, 0, missing))
"""
OFFER = """
    from dvbench import Plugin, hookimpl

    @hookimpl
    def dvbench_bases():
        return [Plugin("{name}", "{target}", "")]
"""
COMMAND = """
    import click
    from dvbench import hookimpl

    @hookimpl
    def dvbench_commands(cli):
        @cli.command()
        @click.option("--debug", is_flag=True, help="a flag of its own")
        def greet(debug):
            click.echo("good day")

        @cli.command()
        def stumble():
            raise RuntimeError("over\\na stone")

        @cli.command()
        @click.option("--code", type=int)
        def leave(code):
            click.get_current_context().exit(code)

        @cli.command()
        def vanish():
            raise SystemExit(0)
"""
# A wrong distribution's source and what the list is to say of it.
BROKEN = {
    "bad-import": ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
    "bad-syntax": ("def", "SyntaxError"),
    "bad-name": ("from dvbench import Bases", "ImportError: cannot import name 'Bases'"),
    "bad-hook": (
        "from dvbench import hookimpl\n@hookimpl\ndef dvbench_bases(): raise RuntimeError('no luck')",
        "calling dvbench_bases raised RuntimeError: no luck",
    ),
    "bad-rubbish": (
        "from dvbench import hookimpl\n@hookimpl\ndef dvbench_samplers(): return 3",
        "calling dvbench_samplers raised TypeError: 'int' object is not iterable",
    ),
    "bad-spelling": (
        "from dvbench import hookimpl\n@hookimpl\ndef dvbench_base(): return []",
        "there is no hook called 'dvbench_base': did you mean 'dvbench_bases'?",
    ),
    "bad-undecorated": (
        "from dvbench import hookimpl\n@hookimpl\ndef dvbench_commands(cli): cli.add_command(dvbench_commands, 'memo')",
        "it adds 'memo', a function and no command: put @click.command() before it",
    ),
    "bad-command": (
        "from dvbench import hookimpl\n@hookimpl\ndef dvbench_commands(cli): cli.commands.clear()",
        "it replaces the command",
    ),
}
# A distribution whose plugin's target is wrong, and what asking for it says.
TARGETS = {
    "no-module": ("no_such_module:It", "ModuleNotFoundError"),
    "no-class": ("no_class:It", "AttributeError"),
    "no-basis": ("json:JSONDecoder", "not a subclass of dvbench.Basis"),
    "no-abstract": ("dvbench:Basis", "Basis does not define embed, project"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return a folder with one sound distribution, two of one name, a loud one, and one wrong in each way."""
    folder = tmp_path_factory.mktemp("site")
    install(folder, "Corner.One", CORNER.replace("{module}", "corner_one"), module="corner_one")
    install(folder, "corner-two", CORNER.replace("{module}", "corner_two"))
    install(folder, "only-mine", CORNER.replace("{module}", "only_mine").replace('"corner"', '"mine"'))
    install(folder, "loud", OFFER.format(name="loud", target="only_mine:Corner") + "    print('I am here')\n")
    install(folder, "has-command", COMMAND)
    for name, (body, _) in BROKEN.items():
        install(folder, name, body)
    for name, (target, _) in TARGETS.items():
        install(folder, name, OFFER.format(name=name, target=target))
    return folder


@pytest.fixture(scope="module")
def listed(site):
    """Return what `dvbench plugins list --json` says of them, its standard output being nothing but JSON."""
    run = dvbench("plugins", "list", "--json", path=site)
    assert run.returncode == 0, run.stderr
    assert not run.stderr
    return json.loads(run.stdout)


def of(listed, distribution):
    return [row for row in listed if row["distribution"] == distribution]


def test_a_sound_plugin_is_listed_with_its_distribution_and_version(listed):
    (row,) = of(listed, "only-mine")
    assert row == {
        "kind": "basis",
        "name": "mine",
        "distribution": "only-mine",
        "version": "1.2",
        "state": "active",
        "reason": None,
    }
    assert {row["state"] for row in of(listed, "dvbench")} == {"active"}
    assert {(row["kind"], row["name"]) for row in of(listed, "has-command")} == {
        ("command", "greet"),
        ("command", "leave"),
        ("command", "stumble"),
        ("command", "vanish"),
    }


def test_two_of_one_name_are_both_listed_with_the_way_to_ask(listed):
    (one,), (two,) = of(listed, "Corner.One"), of(listed, "corner-two")
    assert one["state"] == two["state"] == "active"
    assert "ask for Corner.One:corner" in one["reason"]
    assert "ask for corner-two:corner" in two["reason"]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_distribution_is_listed_with_the_reason(listed, name):
    (row,) = of(listed, name)
    assert row["state"] == "broken"
    assert BROKEN[name][1] in row["reason"]
    assert "\n" not in row["reason"]


@pytest.mark.parametrize("name", TARGETS)
def test_a_plugin_with_a_wrong_target_is_listed_with_the_reason(listed, name):
    (row,) = of(listed, name)
    assert row["state"] == "broken"
    assert TARGETS[name][1] in row["reason"]


def test_one_that_prints_is_listed_as_active_and_named(listed):
    states = {row["kind"]: row for row in of(listed, "loud")}
    assert states["basis"]["state"] == states["entry point"]["state"] == "active"
    assert "prints 'I am here'" in states["entry point"]["reason"]


def test_the_table_tells_the_same(site):
    run = dvbench("plugins", "list", path=site)
    assert run.returncode == 0
    for name in (*BROKEN, *TARGETS, "only-mine"):
        assert name in run.stdout
    assert "good day" not in run.stdout


def test_other_commands_go_on_and_name_what_they_skip(site, tmp_path):
    benchmark = write_benchmark(tmp_path)
    run = dvbench("run", benchmark, "--basis", "mine", "--dry-run", "--json", path=site)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["config"]["basis"] == {"name": "mine"}  # and nothing else on standard output
    assert "Traceback" not in run.stderr
    for name in ("bad-import", "bad-syntax", "bad-hook"):
        assert f"of {name} is broken and was skipped" in run.stderr


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("corner", "offered by Corner.One and corner-two: ask for Corner.One:corner or corner-two:corner"),
        ("no-class", "basis no-class of no-class 1.2 cannot be imported from 'no_class:It'"),
        ("no-basis", "basis no-basis of no-basis 1.2 is unusable"),
        ("mien", "there is no basis called 'mien': did you mean 'mine'?"),
        ("db2", "there is no basis called 'db2': install dvbench-wavelets, which brings it"),
    ],
)
def test_asking_for_what_cannot_be_used_is_one_sentence(site, tmp_path, name, told):
    run = dvbench("run", write_benchmark(tmp_path), "--basis", name, "--dry-run", path=site)
    assert run.returncode == 2
    (error,) = [line for line in run.stderr.splitlines() if line.startswith("Error:")]
    assert told in error


def test_a_distribution_chooses_between_two(site, tmp_path):
    benchmark = write_benchmark(tmp_path)
    run = dvbench("run", benchmark, "--basis", "corner-two:corner", "--dry-run", "--json", path=site)
    assert json.loads(run.stdout)["config"]["basis"] == {"name": "corner-two:corner"}


def test_a_command_of_a_plugin_works_and_its_errors_name_it(site):
    greeted = dvbench("greet", "--debug", path=site)
    assert greeted.stdout == "good day\n"
    assert "used more than once" not in greeted.stderr
    run = dvbench("stumble", path=site)
    assert run.returncode == 1
    assert "Error: has-command 1.2 raised RuntimeError: over a stone (--debug shows where)" in run.stderr
    assert dvbench("leave", "--code", "3", path=site).returncode == 3
    run = dvbench("vanish", path=site)
    assert run.returncode == 1
    assert "Error: has-command 1.2 raised SystemExit: 0 (--debug shows where)" in run.stderr


def test_disabled_distributions_are_neither_loaded_nor_forgotten(site, tmp_path):
    run = dvbench("plugins", "list", "--json", path=site, DVBENCH_DISABLE_PLUGINS="corner_one, bad-hook,LOUD")
    listed = json.loads(run.stdout)
    for name in ("Corner.One", "bad-hook", "loud"):
        (row,) = of(listed, name)
        assert (row["state"], row["kind"]) == ("disabled", "entry point")
    assert of(listed, "corner-two")[0]["reason"] is None  # the name is its own again

    benchmark = write_benchmark(tmp_path)
    for arguments, more in ((["--no-plugins"], {}), ([], {"DVBENCH_DISABLE_PLUGINS": "all"})):
        run = dvbench("run", benchmark, "--basis", "mine", "--dry-run", *arguments, path=site, **more)
        assert run.returncode == 2
        assert "there is no basis called 'mine'" in run.stderr
        assert "broken" not in run.stderr
    assert dvbench("--no-plugins", "greet", path=site).returncode == 2


def test_a_known_package_that_is_disabled_or_broken_is_named(tmp_path):
    install(tmp_path, "dvbench-wavelets", "import nowhere_at_all")
    benchmark = write_benchmark(tmp_path)
    run = dvbench("run", benchmark, "--basis", "db2", "--dry-run", path=tmp_path)
    assert "dvbench-wavelets brings it, and is broken (loading it raised ModuleNotFoundError" in run.stderr
    run = dvbench("run", benchmark, "--basis", "db2", "--dry-run", "--no-plugins", path=tmp_path)
    assert "dvbench-wavelets brings it, and is disabled" in run.stderr


def test_check_prints_what_holds_and_exits_by_it(tmp_path):
    install(tmp_path, "good", CORNER.replace("{module}", "good"))
    halved = CORNER.replace("{module}", "bad").replace('"corner"', '"halved"')
    install(tmp_path, "bad", halved.replace("return x[", "return x[").replace("side, :side]", "side, :side] / 2"))
    run = dvbench("plugins", "check", "corner", path=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("basis corner of good 1.2\n")
    assert "holds  rows are orthonormal, float64: 0 (at most 1e-12)" in run.stdout
    run = dvbench("plugins", "check", "ddim", path=tmp_path)
    assert run.stdout.startswith("sampler ddim of dvbench 0.1.0\n  option eta: float = 0.0\n  holds")
    run = dvbench("plugins", "check", "bad:halved", "--kind", "basis", path=tmp_path)
    assert run.returncode == 1
    assert "FAILS  rows are orthonormal, float64: 0.5 (at most 1e-12)" in run.stdout
    assert "do not hold" in run.stderr


def test_check_asks_for_the_kind_where_it_must_and_for_names_that_are(tmp_path):
    both = OFFER.format(name="lite0", target="nowhere:It")
    install(tmp_path, "both", both)
    run = dvbench("plugins", "check", "lite0", path=tmp_path)
    assert run.returncode == 2
    assert "is the name of a basis and of a detector: say which with --kind" in run.stderr
    run = dvbench("plugins", "check", "lite9", path=tmp_path)
    assert run.returncode == 2
    assert "there is no plugin called 'lite9': did you mean 'lite0'?" in run.stderr
    run = dvbench("plugins", "check", "ddim", "--set", "etta=2", path=tmp_path)
    assert run.returncode == 2
    assert "no option of sampler ddim called 'etta': did you mean 'eta'?" in run.stderr

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import types
import zipfile
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import click
import pytest
from pydantic import Field

from dvbench import registry as module
from dvbench.api import KINDS, Basis, Detector, Plugin, Sampler, hookimpl
from dvbench.errors import UsageError, WorkError
from dvbench.registry import CONTEXT, Registry

if TYPE_CHECKING:
    from nowhere import Unknown

CHECKOUT = Path(__file__).parents[1]


class Crop(Basis):
    def __init__(
        self,
        ladder: Sequence[int],
        channels: int,
        patch: Annotated[int, Field(ge=1)] = 2,
        mode: Literal["left", "right"] = "left",
        weights: tuple[float, ...] = (0.5, 1.0),
        *,
        centred: bool = False,
        label: str | None = None,
    ) -> None:
        super().__init__(ladder, channels)
        if patch > 4:
            raise ValueError("patch is at most 4")
        self.given = (patch, mode, weights, centred, label)

    def project(self, x, level): ...
    def embed(self, y, level): ...


class Plain(Sampler):
    def sample(self, denoise, process, noise, steps): ...


class Abstract(Sampler): ...


class Loose(Plain):
    def __init__(self, **options: Any) -> None: ...


class Stars(Plain):
    def __init__(self, *args: int) -> None: ...


class Needy(Plain):
    def __init__(self, eta: float) -> None: ...


class Untyped(Plain):
    def __init__(self, eta=0.5) -> None: ...


class Named(Plain):
    def __init__(self, name: str = "ddim") -> None: ...


class Unresolved(Plain):
    def __init__(self, eta: "Unknown" = None) -> None: ...


class Uncheckable(Plain):
    def __init__(self, eta: Basis | None = None) -> None: ...


class Contextless(Basis):
    def __init__(self, ladder: Sequence[int]) -> None: ...
    def project(self, x, level): ...
    def embed(self, y, level): ...


HIDDEN = """
from __future__ import annotations
from typing import TYPE_CHECKING
from dvbench.api import Basis
if TYPE_CHECKING:
    from collections.abc import Sequence
class Hidden(Basis):
    def __init__(self, ladder: Sequence[int], channels: int, patch: int = 2) -> None:
        super().__init__(ladder, channels)
    def project(self, x, level): ...
    def embed(self, y, level): ...
"""


def offering(hook: str = "dvbench_bases", *plugins: Any, does: Any = None) -> types.ModuleType:
    """Make a plugin module with one hook."""
    made = types.ModuleType("made")

    def implementation() -> Any:
        return does() if does else list(plugins)

    setattr(made, hook, hookimpl(implementation))
    return made


def raising(error: BaseException) -> Any:
    def raises() -> None:
        raise error

    return raises


def sampling(target: Any) -> Registry:
    return Registry({"mine": offering("dvbench_samplers", Plugin("it", target, "a sampler"))}, [])


@pytest.fixture
def crop() -> Registry:
    return Registry({"dvbench-crop": offering("dvbench_bases", Plugin("crop", Crop, "cuts"))}, [])


def test_built_ins_come_through_the_hooks_and_import_when_asked():
    registry = Registry(entry_points=[])
    assert registry.problems == []
    for kind in KINDS:
        offers = registry.available(kind)
        assert offers
        assert all(offer.distribution == "dvbench" and offer.kind == kind for offer in offers.values())
    assert registry.load("sampler", "ddim").__module__ == "dvbench.builtin.samplers"


def test_listing_imports_neither_torch_nor_pydantic():
    code = (
        "import sys, click; from dvbench.registry import KINDS, registry; r = registry();"
        "r.add_commands(click.Group());"
        "print([len(r.available(k)) for k in KINDS], {'torch', 'pydantic', 'numpy', 'pandas'} & set(sys.modules))"
    )
    assert "set()" in python(code)


def test_a_context_parameter_that_only_type_checkers_know_harms_no_option(tmp_path, monkeypatch):
    (tmp_path / "hidden_basis.py").write_text(HIDDEN)
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry({"mine": offering("dvbench_bases", Plugin("it", "hidden_basis:Hidden", ""))}, [])
    assert registry.validate("basis", "it", {"patch": "3"}) == {"patch": 3}


def test_options_are_the_constructor_s_without_the_context(crop):
    options = crop.options("basis", "crop")
    assert list(options) == ["patch", "mode", "weights", "centred", "label"]
    assert options["weights"].annotation == tuple[float, ...]
    assert options["centred"].default is False
    assert Registry(entry_points=[]).options("basis", "identity") == {}


def test_options_are_typed_completed_and_fit_for_json(crop):
    given = {"patch": "3", "weights": ("0.5", 2), "centred": "true"}
    checked = crop.validate("basis", "crop", given)
    assert checked == {"patch": 3, "mode": "left", "weights": [0.5, 2.0], "centred": True, "label": None}
    assert json.loads(json.dumps(checked)) == checked
    assert crop.validate("basis", "crop", checked) == checked


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"ptach": 3}, "no option of basis crop called 'ptach': did you mean 'patch'?"),
        ({"patch": "three"}, "option patch of basis crop is .*int.*'three' will not do"),
        ({"patch": 0}, "greater than or equal to 1"),
        ({"mode": "up"}, "'left' or 'right'"),
        ({"weights": 3}, "option weights .* 3 will not do"),
        ({"weights": [float("nan")]}, "nan.* give a finite value"),
        ({"ladder": [4, 2]}, "no option of basis crop called 'ladder'"),
    ],
)
def test_a_bad_option_is_one_sentence(crop, given, told):
    with pytest.raises(UsageError, match=told) as caught:
        crop.validate("basis", "crop", given)
    assert "\n" not in str(caught.value)


def test_creating_hands_over_context_and_typed_options(crop):
    basis = crop.create("basis", "crop", {"ladder": (8, 4), "channels": 3}, {"weights": ["1", 2], "label": "x"})
    assert (basis.ladder, basis.channels) == ((8, 4), 3)
    assert basis.given == (2, "left", (1.0, 2.0), False, "x")


def test_a_constructor_s_complaint_is_the_user_s_sentence(crop):
    with pytest.raises(UsageError, match=r"^basis crop: patch is at most 4$"):
        crop.create("basis", "crop", {"ladder": (8, 4), "channels": 3}, {"patch": 5})
    with pytest.raises(UsageError, match=r"basis crop needs ladder and channels"):
        crop.create("basis", "crop", {}, {})


@pytest.mark.parametrize("error", [RuntimeError("no\nluck"), KeyError("key"), SystemExit(0)])
def test_what_a_constructor_raises_is_told_with_its_name(error):
    class Raising(Plain):
        def __init__(self) -> None:
            raise error

    told = r"^sampler it of mine unknown raised (RuntimeError: no luck|KeyError: 'key'|SystemExit: 0) when it was made "
    with pytest.raises(WorkError, match=told) as caught:
        sampling(Raising).create("sampler", "it", {}, {})
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt()])
def test_full_memory_and_interruptions_are_not_the_constructor_s(error):
    class Raising(Plain):
        def __init__(self) -> None:
            raise error

    with pytest.raises(type(error)):
        sampling(Raising).create("sampler", "it", {}, {})


@pytest.mark.parametrize("part", [None, (), (4,), (8, 2), (8, 4, 2)])
def test_a_part_of_the_ladder_that_is_none_is_told_with_the_basis_s_name(part):
    class Partial(Crop):
        @classmethod
        def usable(cls, ladder: Sequence[int]) -> Any:
            return part if len(ladder) == 2 else ladder

    registry = Registry({"mine": offering("dvbench_bases", Plugin("it", Partial, ""))}, [])
    with pytest.raises(WorkError, match=r"^basis it of mine unknown raised TypeError: .* asked which part of .* 8,4 "):
        registry.usable("it", (8, 4))
    assert registry.usable("identity", (8, 4)) == (8,)


def test_blame_is_the_innermost_plugin_s_whatever_it_called():
    made = offering()
    made.__name__ = __name__  # what this module does is the plugin's doing
    registry = Registry({"mine": made}, [])
    with pytest.raises(UsageError) as caught:
        registry.offers("nothing")
    assert registry.blame(caught.value) == "mine unknown"


def test_create_from_python_takes_context_and_options_together(crop, monkeypatch):
    monkeypatch.setattr(module, "registry", lambda: crop)
    assert module.create("basis", "crop", ladder=(8, 4), channels=1, patch=4).given[0] == 4
    assert "crop" in module.available("basis")
    with pytest.raises(UsageError, match=r"no kind of plugin called 'bases'"):
        module.create("bases", "crop")


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (Loose, r"'\*\*options: Any', which names no option"),
        (Stars, r"'\*args: int', which names no option"),
        (Needy, "no option without a type and a default"),
        (Untyped, "no option without a type and a default"),
        (Unresolved, "Unknown.*import it"),
        (Named, "`name` is what chooses the plugin itself: call it otherwise"),
    ],
)
def test_a_constructor_that_is_no_configuration_is_refused(target, told):
    with pytest.raises(UsageError, match=told) as caught:
        sampling(target).options("sampler", "it")
    assert str(caught.value).startswith("sampler it of mine unknown is unusable: the constructor of ")
    assert target.__name__ in str(caught.value)


def test_an_option_that_cannot_be_checked_is_refused():
    with pytest.raises(UsageError, match=r"option eta of sampler it has the type .*Basis"):
        sampling(Uncheckable).validate("sampler", "it", {})


def test_a_constructor_must_take_what_the_bench_gives():
    registry = Registry({"mine": offering("dvbench_bases", Plugin("it", Contextless, ""))}, [])
    with pytest.raises(UsageError, match=r"Contextless does not take 'channels'"):
        registry.options("basis", "it")


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("nowhere.at_all:It", "sampler it of mine unknown cannot be imported from 'nowhere.at_all:It' .*nowhere"),
        ("json:It", "AttributeError"),
        ("no module", "cannot be imported"),
        ("json:dumps", "not a subclass of dvbench.Sampler"),
        (Crop, "not a subclass of dvbench.Sampler"),
        (Abstract, "Abstract does not define sample"),
    ],
)
def test_a_target_that_is_no_such_class_is_refused(target, told):
    registry = sampling(target)
    assert "it" in registry.available("sampler")  # only asking for it is an error
    with pytest.raises(UsageError, match=told):
        registry.load("sampler", "it")


def test_a_backbone_must_be_a_backbone():
    registry = Registry({"mine": offering("dvbench_backbones", Plugin("it", "torch.nn:Linear", ""))}, [])
    with pytest.raises(UsageError, match=r"not a subclass of dvbench.Backbone"):
        registry.load("backbone", "it")


def test_a_target_whose_import_exits_is_refused(tmp_path, monkeypatch):
    (tmp_path / "leaves.py").write_text("raise SystemExit(7)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="SystemExit: 7"):
        sampling("leaves:It").load("sampler", "it")


@pytest.mark.parametrize("mine", ["crop", "dvbench-crop:crop", "DVbench_Crop:crop"])
def test_a_name_may_be_bare_or_qualified(crop, mine):
    assert crop.find("basis", mine).distribution == "dvbench-crop"


@pytest.mark.parametrize("name", ["corp", "dvbench:crop", "nobody:crop", "", "crop:"])
def test_an_unknown_name_is_refused(crop, name):
    with pytest.raises(UsageError, match="no basis called"):
        crop.find("basis", name)


def test_a_known_package_that_lacks_the_name_is_not_advised():
    waves = offering("dvbench_bases", Plugin("db2", Crop, ""))
    with pytest.raises(UsageError, match=r"no basis called 'db99': did you mean 'db2'\?"):
        Registry({"dvbench-wavelets": waves}, []).find("basis", "db99")
    with pytest.raises(UsageError, match=r"no basis called 'db99': install dvbench-wavelets"):
        Registry(entry_points=[]).find("basis", "db99")


def test_two_plugins_of_one_name_must_be_told_apart():
    registry = Registry({"other": offering("dvbench_bases", Plugin("dct", Crop, ""))}, [])
    with pytest.raises(UsageError, match=r"dvbench and other: ask for dvbench:dct or other:dct"):
        registry.find("basis", "dct")
    assert registry.load("basis", "other:dct") is Crop
    assert registry.find("basis", "dvbench:dct").distribution == "dvbench"
    names = set(registry.available("basis"))
    assert {"dvbench:dct", "other:dct", "identity"} <= names
    assert "dct" not in names


@pytest.mark.parametrize(
    ("does", "told"),
    [
        (raising(RuntimeError("no\nluck")), "RuntimeError: no luck$"),
        (raising(SystemExit(3)), "SystemExit: 3"),
        (lambda: None, "TypeError"),
        (lambda: [Plugin("fine", Crop, ""), "dct"], "'dct' is not a dvbench.Plugin"),
        (lambda: [Plugin("a:b", Crop, "")], "'a:b' is no name"),
        (lambda: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_hook_that_fails_loses_only_its_own(does, told):
    plugins = {"bad": offering(does=does), "good": offering("dvbench_bases", Plugin("crop", Crop, ""))}
    registry = Registry(plugins, [])
    names = set(registry.available("basis"))
    assert {"crop", "dct"} <= names
    assert "fine" not in names
    registry.available("basis")
    (problem,) = registry.problems  # once, however often it is asked
    assert problem.distribution == "bad"
    assert re.search(told, problem.reason)
    assert str(problem).count("\n") == 0


def test_what_offers_one_name_twice_is_reported():
    twice = offering("dvbench_bases", Plugin("crop", Crop, "1"), Plugin("crop", Plain, "2"))
    registry = Registry({"mine": twice}, [])
    assert registry.find("basis", "crop").plugin.summary == "1"
    assert "'crop' twice" in str(registry.problems[0])


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (offering("dvbench_basis"), "no hook called 'dvbench_basis': did you mean 'dvbench_bases'?"),
        (types.ModuleType("empty"), "implements no hook"),
        (None, "implements no hook"),
    ],
)
def test_what_implements_no_known_hook_is_reported(made, told):
    (problem,) = Registry({"mine": made}, []).problems
    assert told in problem.reason


def test_a_hook_with_unknown_arguments_is_reported():
    made = types.ModuleType("made")
    made.dvbench_bases = hookimpl(lambda more: [more])
    (problem,) = Registry({"mine": made}, []).problems
    assert "PluginValidationError" in problem.reason
    assert "Argument(s) {'more'} are declared in the hookimpl but can not be found in the hookspec" in problem.reason
    assert "\n" not in problem.reason


def test_interrupting_is_not_a_plugin_s_fault():
    registry = Registry({"mine": offering(does=raising(KeyboardInterrupt()))}, [])
    with pytest.raises(KeyboardInterrupt):
        registry.available("basis")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("import nowhere_at_all", "ModuleNotFoundError"),
        ("def", "SyntaxError"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_an_entry_point_that_does_not_load_is_skipped(tmp_path, monkeypatch, body, told):
    (tmp_path / "broken_one.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_one", raising=False)
    registry = Registry(entry_points=[EntryPoint("mine", "broken_one", "dvbench")])
    (problem,) = registry.problems
    assert (problem.source.entry_point, problem.distribution) == ("mine", "broken_one")
    assert told in problem.reason
    assert "dct" in registry.available("basis")


def test_versions_are_of_the_distributions_that_were_used(crop):
    crop.plain = crop
    assert crop.versions([("basis", "crop"), ("basis", "dct"), ("sampler", "ddim")]) == {
        "dvbench-crop": "unknown",
        "dvbench": crop.find("basis", "dct").version,
    }


def test_every_kind_has_a_context_and_an_abstract_class():
    assert set(CONTEXT) == set(KINDS)
    assert issubclass(Registry(entry_points=[]).load("detector", "lite0"), Detector)


def commanding(does: Any) -> types.ModuleType:
    made = types.ModuleType("commanding")
    made.dvbench_commands = hookimpl(does)
    return made


def test_commands_of_a_broken_plugin_are_left_out():
    def add(name: str) -> Any:
        def adds(cli: click.Group) -> None:
            cli.add_command(click.Command(name))

        return adds

    def fail(cli: click.Group) -> None:
        cli.add_command(click.Command("half"))
        raise RuntimeError("no")

    def forget(cli: click.Group) -> None:
        cli.add_command(fail, "forgotten")  # without @click.command()

    def forget_below(cli: click.Group) -> None:
        cli.commands["data"].add_command(click.Command("more"))
        cli.commands["data"].add_command(fail, "forgotten")

    own, data = click.Command("run"), click.Group("data")
    cli = click.Group(commands={"run": own, "data": data})
    plugins = {"a": add("one"), "b": fail, "c": add("run"), "d": add("two"), "e": forget, "f": forget_below}
    registry = Registry({name: commanding(does) for name, does in plugins.items()}, [])
    registry.add_commands(cli)
    assert set(cli.commands) == {"run", "data", "one", "two"}
    assert cli.commands["run"] is own
    assert not data.commands
    told = {problem.distribution: problem.reason for problem in registry.problems}
    assert set(told) == {"b", "c", "e", "f"}
    assert told["e"] == told["f"] == ("it adds 'forgotten', a function and no command: put @click.command() before it")


def wheel(folder: Path, name: str, body: str, entry_points: str) -> Path:
    """Write a wheel by hand: no build backend is needed to try an installation."""
    stem = name.replace("-", "_")
    info = f"{stem}-1.2.dist-info"
    files = {
        f"{stem}.py": body,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": entry_points,
    }
    lines = []
    path = folder / f"{stem}-1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            lines.append(f"{file},sha256={digest},{len(text)}")
        archive.writestr(f"{info}/RECORD", "\n".join([*lines, f"{info}/RECORD,,"]) + "\n")
    return path


def python(code: str, *path: Path) -> str:
    where = os.pathsep.join(map(str, [*path, CHECKOUT]))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": where},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SOUND = """
from dvbench import Plugin, Sampler, hookimpl
class Late(Sampler):
    def __init__(self, eta: float = 0.5) -> None:
        self.eta = eta
    def sample(self, denoise, process, noise, steps): ...
@hookimpl
def dvbench_samplers():
    return [Plugin("late", "{module}:Late", "comes late")]
"""
ASK = """
import json
from dvbench.errors import UsageError
from dvbench.registry import create, registry
found = registry()
told = {"names": sorted(found.available("sampler")), "problems": {p.distribution: str(p) for p in found.problems}}
try:
    found.find("sampler", "late")
except UsageError as error:
    told["clash"] = str(error)
told["eta"] = create("sampler", "late-one:late", eta="0.25").eta
told["versions"] = found.versions([("sampler", "late-two:late")])
print(json.dumps(told))
"""


def test_installed_distributions_are_found_told_apart_and_isolated(tmp_path):
    group = "[dvbench]\nmine = {}\n"
    wheels = [
        wheel(tmp_path, name, SOUND.replace("{module}", name.replace("-", "_")), group.format(name.replace("-", "_")))
        for name in ("late-one", "late-two")
    ]
    wheels.append(wheel(tmp_path, "late-broken", "import nowhere_at_all", group.format("late_broken")))
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-compile", "-q", "--target", target]
    done = subprocess.run([*pip, *wheels], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    told = json.loads(python(ASK, target))
    assert {"late-one:late", "late-two:late", "ddim"} <= set(told["names"])
    assert "late-one and late-two" in told["clash"] or "late-two and late-one" in told["clash"]
    assert told["eta"] == 0.25
    assert told["versions"] == {"late-two": "1.2"}
    assert list(told["problems"]) == ["late-broken"]
    assert "nowhere_at_all" in told["problems"]["late-broken"]


@pytest.mark.parametrize("group", ["dvbench.plugins", "dvbench_plugins", "dvbench.own"])
def test_entry_points_in_a_group_that_is_not_read_are_reported(tmp_path, group):
    with zipfile.ZipFile(wheel(tmp_path, "late-lost", "", f"[{group}]\nmine = late_lost\n")) as archive:
        archive.extractall(tmp_path)
    told = python("from dvbench.registry import registry as r; print(*r().problems)", tmp_path)
    wanted = f"plugin 'mine' of late-lost is broken and was skipped: it is in the group {group!r}, which is not read"
    assert wanted in told


def test_a_distribution_with_garbled_entry_points_is_skipped(tmp_path):
    with zipfile.ZipFile(wheel(tmp_path, "late-garbled", "", "[dvbench]\nmine\n")) as archive:
        archive.extractall(tmp_path)
    code = "from dvbench.registry import registry as r; print(*r().problems, 'ddim' in r().available('sampler'))"
    told = python(code, tmp_path)
    assert "late_garbled" in told
    assert "True" in told

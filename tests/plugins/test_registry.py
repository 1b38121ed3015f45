"""Plugins are found, validated and named in errors; broken ones only warn."""

import subprocess
import sys
import textwrap
import types

import pytest

from curricula.errors import UnknownNameError, UserError
from curricula.expressions.syntax import parse
from curricula.plugins import hookspecs, registry
from curricula.plugins.hookspecs import KINDS, Record, hookimpl
from curricula.plugins.registry import PluginWarning, Provider, Registry, build_registry

THIRD_PARTY = Provider(name="third-party", version="2", source="distribution")


def plugin(*records, kind="perturbation"):
    module = types.SimpleNamespace()

    def yields():
        yield from records

    yields.__name__ = f"curricula_{kind}s"
    setattr(module, yields.__name__, hookimpl(yields))
    return module


def haze(name="haze"):
    return Record(name=name, factory="haze:Haze", summary="white veil")


@pytest.fixture
def fake_distribution(tmp_path, monkeypatch):
    """Install a module as a distribution with real entry-point metadata."""

    def install(name, source, *, attribute=""):
        module = name.replace("-", "_").replace(".", "_").lower()
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        info = tmp_path / f"{module}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[curricula]\n{module} = {module}{attribute}\n")

    monkeypatch.syspath_prepend(str(tmp_path))
    yield install
    for module in [module for module in sys.modules if module.startswith("fake_")]:
        del sys.modules[module]


GOOD = """
    from curricula import Record, hookimpl

    @hookimpl
    def curricula_perturbations():
        yield Record(name="haze", factory="nowhere:Haze", summary="white veil")
"""


def test_an_installed_plugin_is_listed_with_its_distribution(fake_distribution):
    fake_distribution("fake-good", GOOD)
    found = build_registry().find("perturbation", "haze")
    assert str(found.provider) == "fake-good 1.5"


def test_a_plugin_that_raises_at_import_gives_one_warning_that_names_it(fake_distribution):
    fake_distribution("fake-broken", "raise RuntimeError('no such thing')")
    with pytest.warns(
        PluginWarning, match=r"fake-broken 1\.5 failed to load: RuntimeError: no such"
    ):
        loaded = build_registry()
    assert "rot" in loaded.records("perturbation")
    with pytest.raises(UnknownNameError, match="fake-broken"):
        loaded.find("perturbation", "hzae")


@pytest.mark.parametrize(
    "source",
    [
        "import not_installed_anywhere",
        "def",
        GOOD.replace("yield Record(", "yield dict("),
        GOOD.replace("curricula_perturbations", "curricula_perturbation_s"),
        GOOD + "        raise KeyError('half-way')\n",
    ],
    ids=["import", "syntax", "not a record", "unknown hook", "half-way"],
)
def test_nothing_of_a_broken_plugin_is_registered(fake_distribution, source):
    fake_distribution("fake-broken", source)
    with pytest.warns(PluginWarning, match="fake-broken"):
        loaded = build_registry()
    assert "haze" not in loaded.records("perturbation")
    assert [failure.provider.name for failure in loaded.failures] == ["fake-broken"]


def test_strict_makes_a_broken_plugin_an_error(fake_distribution, monkeypatch):
    fake_distribution("fake-broken", "1 / 0")
    monkeypatch.setenv("CURRICULA_STRICT_PLUGINS", "1")
    with pytest.raises(UserError, match="fake-broken"):
        build_registry()


def test_no_plugins_loads_only_the_built_ins(fake_distribution, monkeypatch):
    fake_distribution("fake-broken", "1 / 0")
    monkeypatch.setenv("CURRICULA_NO_PLUGINS", "1")
    loaded = build_registry()
    providers = {found.provider.name for kind in KINDS for found in loaded.records(kind).values()}
    assert providers == {"curricula"}


TWO = """
    from curricula import Record, hookimpl

    @hookimpl
    def curricula_perturbations():
        yield Record(name="haze", factory="nowhere:Haze", summary="white veil")
        yield Record(name="rain", factory="nowhere:Rain", summary="drops")
"""


@pytest.fixture
def clash(fake_distribution, tmp_path):
    """Return a registry of two distributions and a file that register one name."""
    fake_distribution("fake-one", TWO)
    fake_distribution("Fake.Two", GOOD)
    (tmp_path / "My haze.py").write_text(textwrap.dedent(GOOD))
    return build_registry([tmp_path / "My haze.py"])


def test_a_name_of_several_plugins_needs_its_provider_and_blocks_nothing_else(clash):
    with pytest.raises(UserError) as caught:
        clash.find("perturbation", "haze")
    assert str(caught.value).startswith(
        "perturbation 'haze' is registered by Fake.Two 1.5 and by fake-one 1.5 and by "
    )
    fix = ": write fake-two/haze or fake-one/haze or my-haze/haze, or leave one out with CURRICULA_"
    assert fix in str(caught.value)
    assert clash.find("perturbation", "rain").provider.name == "fake-one"
    assert clash.find("perturbation", "rot").is_builtin
    for name in (
        "fake-two/haze",
        "Fake.Two/haze",
        "fake_two/haze",
        "my-haze/haze",
        "fake-one/rain",
    ):
        found = clash.find("perturbation", name)
        assert found.provider.prefix in ("fake-two", "my-haze", "fake-one")
        assert found.record.name == name.partition("/")[2]
    names = list(clash.records("perturbation"))
    assert {"rot", "rain", "fake-one/haze", "fake-two/haze", "my-haze/haze"} <= set(names)
    assert "haze" not in names
    for name in names:
        assert clash.find("perturbation", name) is clash.records("perturbation")[name]


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("fake-too/haze", "did you mean fake-two/haze"),
        ("fake-one/rian", "did you mean "),
        ("fake-two/rain", "did you mean rain"),
        ("curricula/haze", "did you mean "),
        ("nothing/zzz", "curricula plugins lists all"),
        ("fake-one/zzz", r"did you mean fake-one/haze or rain\?$"),
        ("fake-one/rott", "did you mean rot"),
        ("hazee", "did you mean "),
    ],
)
def test_an_unknown_provider_or_name_of_it_is_one_line(clash, name, fix):
    with pytest.raises(UnknownNameError, match=f"unknown perturbation '{name}': {fix}"):
        clash.find("perturbation", name)


def test_two_files_of_one_name_that_clash_must_be_renamed(tmp_path):
    files = [tmp_path / "a" / "mine.py", tmp_path / "b" / "mine.py"]
    for file in files:
        file.parent.mkdir()
        file.write_text(textwrap.dedent(TWO if file == files[0] else GOOD))
    loaded = build_registry([*files, files[0]])
    for name in ("haze", "mine/haze"):
        with pytest.raises(
            UserError, match=r"'haze' is registered by .*: rename one of the files$"
        ):
            loaded.find("perturbation", name)
    assert loaded.find("perturbation", "mine/rain").provider.name == str(files[0])


def test_a_built_in_name_stays_the_built_in_one(fake_distribution):
    fake_distribution("fake-rot", GOOD.replace('"haze"', '"rot"'))
    says = (
        r"plugin fake-rot 1.5 registers the perturbation 'rot', which is built in: rot is the "
        "built-in one, fake-rot/rot the plugin's; CURRICULA_DISABLE=fake-rot leaves the plugin out"
    )
    with pytest.warns(PluginWarning, match=says):
        loaded = build_registry()
    assert loaded.find("perturbation", "rot").is_builtin
    assert loaded.find("perturbation", "curricula/rot").is_builtin
    assert loaded.find("perturbation", "fake-rot/rot").provider.name == "fake-rot"
    assert loaded.records("perturbation")["rot"].is_builtin
    (line,) = loaded.clashes()
    assert line == "perturbation 'rot' is built in; fake-rot/rot is that of fake-rot 1.5"


def test_a_plugin_that_registers_a_name_twice_is_broken():
    with pytest.raises(ValueError, match="it registers the perturbation 'haze' twice"):
        Registry().add(plugin(haze(), haze()), THIRD_PARTY)


@pytest.mark.parametrize(
    ("name", "source", "prefix"),
    [
        ("curricula-torchattacks", "distribution", "curricula-torchattacks"),
        ("Zope.Interface_x", "distribution", "zope-interface-x"),
        ("3to2", "distribution", "plugin-3to2"),
        ("nets/My net (2).py", "file", "my-net-2"),
        ("数据.py", "file", "plugin"),
        ("some/curricula.py", "file", "plugin-curricula"),
        ("a.py.py", "file", "a-py"),
    ],
)
def test_a_provider_has_a_prefix_that_expressions_can_hold(name, source, prefix):
    assert Provider(name=name, version="1", source=source).prefix == prefix
    assert parse(f"{prefix}/haze:1").name == f"{prefix}/haze"


@pytest.mark.parametrize(
    "text", ["fake-one", "Fake_One", " fake.one , ", "fake-one,my-haze,FAKE-ONE"]
)
def test_a_plugin_may_be_left_out(clash, tmp_path, monkeypatch, text):
    monkeypatch.setenv("CURRICULA_DISABLE", text)
    loaded = build_registry([tmp_path / "My haze.py"])
    assert loaded.disabled[0].name == "fake-one"
    assert ("my-haze" in text) == (len(loaded.disabled) == 2)
    with pytest.raises(UnknownNameError, match=r"CURRICULA_DISABLE leaves out fake-one 1\.5"):
        loaded.find("perturbation", "rain")
    if "my-haze" in text:
        assert loaded.find("perturbation", "haze").provider.name == "Fake.Two"


def test_a_plugin_that_is_left_out_is_not_imported(fake_distribution, monkeypatch):
    fake_distribution("fake-broken", "1 / 0")
    monkeypatch.setenv("CURRICULA_DISABLE", "fake-broken")
    assert not build_registry().failures
    assert "fake_broken" not in sys.modules


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("fake-onne", "'fake-onne'; did you mean fake-one?"),
        ("fake-one,curricula", "'curricula'; "),
        ("*", "'\\*'; known: "),
    ],
)
def test_an_unknown_plugin_to_leave_out_is_one_line(fake_distribution, monkeypatch, text, fix):
    fake_distribution("fake-one", GOOD)
    monkeypatch.setenv("CURRICULA_DISABLE", text)
    with pytest.raises(UserError, match=f"^CURRICULA_DISABLE: there is no plugin {fix}"):
        build_registry()


@pytest.mark.parametrize("name", ["clean", "worst"])
def test_a_plugin_cannot_take_a_reserved_word(name):
    with pytest.raises(ValueError, match=f"{name!r} is a reserved word of the expression language"):
        Registry().add(plugin(haze(name)), THIRD_PARTY)


def test_two_kinds_may_share_a_name():
    loaded = Registry()
    loaded.add(plugin(haze("step")), THIRD_PARTY)
    loaded.add(plugin(haze("step"), kind="schedule"), THIRD_PARTY)
    assert loaded.find("perturbation", "step").kind == "perturbation"


@pytest.mark.parametrize(("typed", "meant"), [("rott", "rot"), ("pdg", "pgd"), ("transs", "trans")])
def test_an_unknown_name_error_lists_near_matches(typed, meant):
    with pytest.raises(UnknownNameError, match=f"unknown perturbation '{typed}'.*{meant}"):
        build_registry().find("perturbation", typed)


def test_without_near_matches_the_error_lists_all_names_if_few():
    with pytest.raises(
        UnknownNameError,
        match=r"known: at, trades, mart, gat, nuat, gradalign, mix, alp, consistency$",
    ):
        build_registry(entry_points=False).find("objective", "zzzzzz")
    count = len(build_registry().records("perturbation"))
    with pytest.raises(
        UnknownNameError, match=f"curricula plugins lists all {count}, and --plugin FILE adds"
    ):
        build_registry().find("perturbation", "zzzzzz")


@pytest.mark.parametrize("name", ["", "8pgd", "a b", "a+b", "a:b", "é", "bad-"])
def test_a_record_needs_a_name_valid_in_expressions(name):
    with pytest.raises(ValueError, match="name"):
        haze(name)


def test_a_failed_factory_import_shows_the_install_hint():
    record = Record(
        name="haze", factory="nowhere.at_all:Haze", summary="veil", install="pip install haze"
    )
    loaded = Registry()
    loaded.add(plugin(record), THIRD_PARTY)
    with pytest.raises(UserError, match=r"'haze' of third-party 2.*nowhere.*try: pip install haze"):
        loaded.find("perturbation", "haze").load()


def test_a_loose_file_may_register_callables(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(GOOD).replace('"nowhere:Haze"', "dict"))
    found = build_registry([path]).find("perturbation", "haze")
    assert found.load() is dict
    assert str(found.provider) == str(path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "it has no hook: mark one with @hookimpl; there is curricula_perturbations, "),
        ("def curricula_models():\n    yield 1", "it has no hook"),
        ("", "it has no hook"),
        (
            "from curricula import hookimpl\n\n@hookimpl\ndef curricula_model():\n    yield 1",
            "unknown hook 'curricula_model'; did you mean curricula_models",
        ),
        (
            "from curricula import hookimpl\n\n@hookimpl\ndef curricula_models():\n    pass",
            "curricula_models returned None: yield records instead",
        ),
    ],
)
def test_a_plugin_file_that_registers_nothing_is_an_error(source, message, tmp_path):
    (tmp_path / "bare.py").write_text(source)
    with pytest.raises(UserError, match=message) as caught:
        build_registry([tmp_path / "bare.py"])
    assert "bare.py failed to load" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_plugin_may_yield_nothing():
    registry = build_registry(entry_points=False)
    registry.add(plugin(), THIRD_PARTY)


def test_a_broken_plugin_file_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        build_registry([tmp_path / "absent.py"])
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0")
    with pytest.raises(UserError, match=r"broken\.py failed to load: ZeroDivisionError"):
        build_registry([broken])


def test_every_built_in_can_be_imported():
    for kind in KINDS:
        for found in build_registry().records(kind).values():
            assert callable(found.load())
            assert found.record.summary


def test_there_is_one_hook_per_kind():
    specified = {name for name in vars(hookspecs) if name.startswith("curricula_")}
    assert specified == {f"curricula_{kind}s" for kind in KINDS}


PROGRAM = "from curricula.cli.main import program; program({}, standalone_mode=False)"
LIGHT = """
import sys
{code}
heavy = {{"torch", "torchvision", "numpy", "sklearn", "rich", "torchattacks", "escnn"}}
print(sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize(
    "code",
    [
        "import curricula",
        "from curricula.plugins.registry import current; current()",
        PROGRAM.format(["--help"]),
        PROGRAM.format(["plugins"]),
        PROGRAM.format(["train", "--help"]),
    ],
)
def test_heavy_packages_stay_unimported(code):
    done = subprocess.run(
        [sys.executable, "-c", LIGHT.format(code=code)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_current_registry_is_built_once():
    assert registry.current() is registry.current()


@pytest.mark.parametrize("name", ["bad name", "8bit", "", 3])
def test_the_name_of_a_record_is_one_that_expressions_can_hold(name):
    with pytest.raises(ValueError, match="name must be made of letters") as caught:
        Record(name=name, factory="package:thing", summary="")
    assert "\n" not in str(caught.value)
    assert "Attribute" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "exit(3)",
        "raise SystemExit",
        "x = (" * 500,
        "\0",
        "def f(:",
        "import absent",
        "[" * 5000,
        "1/0",
    ],
)
def test_a_broken_file_is_one_line_whatever_it_does(tmp_path, source):
    path = tmp_path / "broken.py"
    path.write_text(source)
    with pytest.raises(UserError, match=r"^plugin .*broken.py failed to load: ") as raised:
        registry.build_registry([path], entry_points=False)
    assert str(raised.value).isprintable()

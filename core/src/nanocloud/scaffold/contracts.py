"""The contracts that a new plugin can fill, and what a skeleton of each can do from the start.

Everything that a contract asks for comes from its abstract class: see ``skeleton.py``. Here is only what no class
says: where a provider that works is so small that it can be written down, its methods, and what its suite asks of the
tests besides a provider.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING

import attrs

from nanocloud import providers
from nanocloud.providers.base import Provider

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

CONTRACTS = tuple(name for name in providers.CONTRACTS if name != "extension")


@attrs.frozen(kw_only=True)
class Start:
    """What is written into a skeleton. Texts are templates: ``$name``, ``$macro``, ``$package``."""

    bodies: Mapping[str, str] = attrs.field(factory=dict)
    """Of methods that work from the start, by name."""
    folders: tuple[str, ...] = ("state_dir",)
    """Which of the node's folders a provider gets one of its own in."""
    prepare: str = ""
    """Body of ``__init__`` where there are no folders."""
    imports: tuple[tuple[str, str], ...] = ()
    """(module, name) that bodies need."""
    tests: str = ""
    """Body of the test class before its fixture ``make_provider``."""
    test_imports: tuple[tuple[str, str], ...] = ()


_MACRO = Start(
    folders=(),
    imports=(("nanocloud.errors", "InvalidError"),),
    bodies={
        "macros": 'return ("$macro",)',
        "expand": """\
if len(arguments) != 1:
    raise InvalidError(f"{' '.join(['!' + macro, *arguments])} is not !{macro} TEXT")
return MacroValue(value=arguments[0])""",
    },
    tests="""\
examples = ("$macro hello",)
mistakes = ("$macro", "$macro two words")""",
)

_BINDING = Start(
    folders=(),
    imports=(("nanocloud.bindings", "ExecBinding"),),
    prepare="self._exec = ExecBinding()  # core's own; change here what is to be different",
    bodies={"run": "return await self._exec.run(call)"},
)

_BOTH = ("state_dir", "run_dir")
_RUNTIME = Start(
    folders=_BOTH,
    test_imports=(("shutil", ""), ("pathlib", "Path")),
    tests="""\
@pytest.fixture
def layers(self, tmp_path: Path) -> tuple[Path, ...]:
    \"\"\"An image of one layer that holds what the suite runs.\"\"\"
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs a static busybox: apt-get install busybox-static")
    programs = tmp_path / "layer" / "bin"
    programs.mkdir(parents=True)
    shutil.copy2(busybox, programs / "busybox")
    for program in ("sh", "cat", "echo", "sleep"):
        (programs / program).symlink_to("busybox")
    return (tmp_path / "layer",)
""",
)

_STARTS = {"macro": _MACRO, "binding": _BINDING, "runtime": _RUNTIME, "network": Start(folders=_BOTH)}


@attrs.frozen
class Contract:
    """One contract, as the names of core follow from its own."""

    name: str

    @property
    def module(self) -> ModuleType:
        return import_module(f"nanocloud.providers.{self.name}")

    @property
    def provider(self) -> type[Provider]:
        """Its abstract class."""
        found: type = getattr(self.module, f"{self.name.capitalize()}Provider")
        assert issubclass(found, Provider)
        return found

    @property
    def suite(self) -> str:
        return f"{self.provider.__name__}Suite"

    @property
    def hook(self) -> str:
        return f"nanocloud_{self.name}_providers"

    @property
    def version(self) -> str:
        return providers.CONTRACTS[self.name]

    @property
    def summary(self) -> str:
        """The first sentence of its module: what it does."""
        text = inspect.cleandoc(self.module.__doc__ or "").partition("\n\n")[0]
        return " ".join(text.partition(": ")[2].split())

    @property
    def start(self) -> Start:
        return _STARTS.get(self.name, Start())

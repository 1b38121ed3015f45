"""The command, hardware and versions of a training, which a run stores.

Only `environment` imports torch.
"""

import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs

from curricula.errors import redacted
from curricula.expressions.checks import parse_schedule, perturbation_names
from curricula.expressions.given import GIVEN
from curricula.expressions.syntax import parse_call
from curricula.plugins import registry
from curricula.plugins.hookspecs import KINDS, Kind
from curricula.plugins.registry import Provider
from curricula.training.config import ModelConfig


@attrs.frozen(kw_only=True)
class Environment:
    """The command, hardware and versions of a training, the contents of ``environment.json``.

    Attributes:
        command: the words of the command, without the passwords of URLs.
        python, torch, torchvision: versions.
        platform: the operating system.
        processor: name of the processor.
        threads: number of threads of torch.
        accelerator: name of the GPU, if there is one.
        providers: distributions and files of all loaded plugins, with their versions.
        names: provider of each name in the configuration, by kind and name; empty in runs of
            earlier versions.
    """

    command: tuple[str, ...]
    python: str
    platform: str
    processor: str
    threads: int
    accelerator: str | None
    torch: str
    torchvision: str
    providers: tuple[str, ...]
    names: Mapping[str, Mapping[str, Provider]] = {}


def environment(config: ModelConfig | None = None) -> Environment:
    """Return this process's command, hardware and versions, which a run stores, and the providers
    of the names in its configuration."""
    import torch

    return Environment(
        command=tuple(map(redacted, sys.argv)),
        python=platform.python_version(),
        platform=platform.platform(),
        processor=processor_name(),
        threads=torch.get_num_threads(),
        accelerator=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        torch=torch.__version__,
        torchvision=metadata.version("torchvision"),
        providers=tuple(sorted(providers())),
        names={} if config is None else providers_by_name(attrs.asdict(config)),
    )


def providers() -> set[str]:
    """Return the distributions and files of all loaded plugins, with their versions."""
    return {
        str(registered.provider)
        for kind in KINDS
        for registered in registry.current().records(kind).values()
    }


def providers_by_name(values: Mapping[str, Any]) -> Mapping[str, Mapping[str, Provider]]:
    """Return the provider of each registered name in a configuration, by kind and name.

    Args:
        values: any of the fields of a configuration.

    Raises:
        UserError: no plugin, or more than one, provides a name.
    """
    found: dict[str, dict[str, Provider]] = {}
    for kind, name in registered_names(values):
        provider = registry.current().find(kind, name).provider
        found.setdefault(kind, {})[name] = provider
    return found


def registered_names(values: Mapping[str, Any]) -> list[tuple[Kind, str]]:
    """Return the kind and the name of everything that a configuration takes from plugins or from
    the built-ins, each once.

    >>> registered_names({"model": "wrn(depth=16)", "perturb": "rot+rot:10+pgd"})
    [('model', 'wrn'), ('perturbation', 'rot'), ('perturbation', 'pgd')]

    Args:
        values: any of the fields of a configuration.
    """
    names = [
        (kind, name)
        for field, (kind, names_in) in _NAMES.items()
        if field in values
        for name in names_in(values[field])
        if name != GIVEN
    ]
    return list(dict.fromkeys(names))


def _name(text: str) -> list[str]:
    return [parse_call(text).name]


def _schedule_names(texts: Iterable[str]) -> list[str]:
    return [parse_schedule(text)[1].name for text in texts]


_NAMES: Mapping[str, tuple[Kind, Callable[[Any], list[str]]]] = {
    "data": ("dataset", _name),
    "model": ("model", _name),
    "perturb": ("perturbation", perturbation_names),
    "augmentation": ("perturbation", perturbation_names),
    "schedule": ("schedule", _schedule_names),
    "objective": ("objective", _name),
    "optimizer": ("optimizer", _name),
    "lr_schedule": ("lr_schedule", _name),
}
"""Kind and names of each field that holds expressions."""


def processor_name() -> str:
    """Return the name of this machine's processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

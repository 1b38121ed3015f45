"""The command, hardware and versions of a training, which a run stores.

Only `environment` imports torch.
"""

import platform
import sys
from importlib import metadata
from pathlib import Path

import attrs

from curricula.errors import redacted
from curricula.plugins import registry
from curricula.plugins.hookspecs import KINDS


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


def environment() -> Environment:
    """Return this process's command, hardware and versions, which a run stores."""
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
    )


def providers() -> set[str]:
    """Return the distributions and files of all loaded plugins, with their versions."""
    return {
        str(registered.provider)
        for kind in KINDS
        for registered in registry.current().records(kind).values()
    }


def processor_name() -> str:
    """Return the name of this machine's processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

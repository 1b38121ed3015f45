"""Freed memory that the process keeps."""

import platform
import subprocess
import sys

import pytest

from curricula.runtime import malloc

SCRIPT = """
import resource, sys
import torch
from curricula.runtime.malloc import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):  # until the heap has grown to its size
    torch.ones(2**24)
before = faults()
for _ in range(8):
    torch.ones(2**24)  # 64 MiB: more than the C library keeps by default
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of the GNU C library")
def test_freed_memory_is_not_requested_again():
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", SCRIPT, how], text=True))
        for how in ("kept", "returned")
    }
    assert faults["kept"] * 3 < faults["returned"]


def test_a_c_library_without_the_setting_returns_false(monkeypatch):
    monkeypatch.setattr(malloc.ctypes, "CDLL", lambda name: object())
    assert not malloc.keep_freed_memory()
    monkeypatch.setattr(malloc.sys, "platform", "win32")
    assert not malloc.keep_freed_memory()

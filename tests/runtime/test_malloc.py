"""Freed memory that the process keeps."""

import platform
import subprocess
import sys

import pytest

from curricula.runtime import malloc

SCRIPT = """
import resource
import torch
from curricula.runtime.malloc import keep_freed_memory

def faults():
    for _ in range(8):  # until the heap has grown to its size
        torch.ones(2**24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(2**24)  # 64 MiB: more than the C library keeps by default
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

returned = faults()
assert keep_freed_memory()
print(returned, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of the GNU C library")
def test_freed_memory_is_not_requested_again():
    printed = subprocess.check_output([sys.executable, "-c", SCRIPT], text=True)
    returned, kept = map(int, printed.split())
    assert kept * 3 < returned


def test_a_c_library_without_the_setting_returns_false(monkeypatch):
    monkeypatch.setattr(malloc.ctypes, "CDLL", lambda name: object())
    assert not malloc.keep_freed_memory()
    monkeypatch.setattr(malloc.sys, "platform", "win32")
    assert not malloc.keep_freed_memory()

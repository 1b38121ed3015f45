import logging

import torch
from torch import nn

from curricula.runtime.compile import Compiled


def test_a_cuda_compiler_without_a_gpu_is_no_message(monkeypatch):
    from torch.utils import cpp_extension

    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger(cpp_extension.__name__)
    monkeypatch.setattr(logger, "filters", [])
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_HOME", "/somewhere")

    def messages():
        records.clear()
        assert cpp_extension._find_cuda_home() == "/somewhere"
        logger.warning("another")
        return [record.getMessage() for record in records]

    assert messages() == ["No CUDA runtime is found, using CUDA_HOME='/somewhere'", "another"]
    for _ in range(2):
        Compiled(nn.Flatten(), batch_size=2)
        assert messages() == ["another"]

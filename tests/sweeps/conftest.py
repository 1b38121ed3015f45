import pytest
from fixtures.quick import shorten_attacks


@pytest.fixture(autouse=True, scope="package")
def _short_attacks():
    """Let evaluations take few steps, those of shared fixtures included."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        shorten_attacks(monkeypatch)
        yield

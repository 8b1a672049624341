import types

import numpy as np
import pytest


@pytest.fixture
def geomstats(monkeypatch) -> types.ModuleType:
    """Geomstats 2.8, which imports ``numpy.trapz``; NumPy 2.4 has it by its new name only."""
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    return pytest.importorskip("geomstats", reason="needs the oracle extra")

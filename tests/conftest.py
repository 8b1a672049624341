"""Four CPU devices, highest matmul precision, shape-checked signatures, a persistent compilation cache."""

import importlib.metadata
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Nearly all programs here are small and run once: most of the suite's time is compilation. The older emitters of fused
# loops compile in half the time; newer releases of XLA do not have them, and stop at a flag that they do not know.
FAST_TO_COMPILE = "--xla_backend_optimization_level=0"
if importlib.metadata.version("jaxlib").startswith("0.10."):
    FAST_TO_COMPILE += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAST_TO_COMPILE}"

import jax
import jaxtyping
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache")))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jaxtyping.install_import_hook("zsml_jax", "beartype.beartype")

SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="module", autouse=True)
def few_compiled_programs():
    """Lets go of compiled programs, a few memory maps each, long before Linux refuses a process its 65,530th map."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > 20_000:
        jax.clear_caches()


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def unchecked_types():
    """Switches off the test-only signature checks, so that the product's own ValueError is seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def x64():
    """Enables float64 for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real data sets that lies beside the checkout; tests that ask for it skip where it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"the shared data folder {SHARED} is not there")
    return SHARED

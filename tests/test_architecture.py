"""The floors of the house, read from the imports by ``ast``: a file imports from lower floors only.

The checker itself is tested on sources made up to break each rule.
"""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: From the ground up. Rooms of one line may use one another without circles, but method rooms never do.
FLOORS = (
    ("typing", "citation"),
    ("transform", "train", "data", "report"),
    ("evaluate", "models"),
    (
        *("zeroshot", "peft", "compression", "autolabel", "weaksup"),
        *("curvature", "hybrids", "market", "steering", "longcontext"),
    ),
    ("experiments", "configs"),
)
METHODS = 3
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
#: Rooms that own parameters; everything else sees ``apply_fn`` and a pytree, which keeps an exit from Linen open.
OWNERS = {"models", "transform", "peft", "hybrids", "curvature"}
FORBIDDEN = {"kauldron", "clu", "ml_collections", "fiddle", "easydel", "transformers", "torch", "tests", "benchmarks"}
#: Packages that only one place may import.
ONLY_IN = {"tensorflow": "zsml_jax.data.prepare", "orbax": "zsml_jax.train.checkpoint"}


def imports(source: str, module: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Yields line and full name of every import, also inside functions and by ``importlib.import_module("...")``."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=base, names=names, level=level):
                parts = package[: len(package) - level + 1] if level else []
                prefix = ".".join([*parts, *([base] if base else [])])
                # What is imported may be a module or a name in one; both tell the room.
                yield from ((node.lineno, f"{prefix}.{alias.name}") for alias in names)
            case ast.Call(func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"), args=[first, *_]):
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield node.lineno, first.value


def room_of(name: str) -> str | None:
    """The room of a module of this project; the package itself is on the ground, and others have none."""
    first, *rest = name.split(".")
    if first == "zsml_jax":
        return rest[0] if rest and rest[0] != "__init__" else "typing"
    return first if first in ("experiments", "configs") else None


def violations(sources: Mapping[str, str]) -> list[str]:
    """Returns what breaks the rules in the sources, by module name (``zsml_jax.data.__init__`` for a package)."""
    found = []
    edges: dict[str, set[str]] = {}
    for module, source in sources.items():
        is_package = module.endswith(".__init__")
        here = room_of(module)
        if here not in FLOOR:
            found.append(f"{module}: {here} is not a room of the house; add it to FLOORS")
            continue
        for line, name in imports(source, module.removesuffix(".__init__"), is_package):
            where, top = f"{module}:{line}", name.split(".")[0]
            if top in FORBIDDEN:
                found.append(f"{where}: {top} must not be imported")
            if top in ONLY_IN and not f"{module}.".startswith(f"{ONLY_IN[top]}."):
                found.append(f"{where}: only {ONLY_IN[top]} imports {top}")
            if f"{name}.".startswith("flax.linen.") and here not in OWNERS:
                found.append(f"{where}: {here} owns no parameters and must not import flax.linen")
            there = room_of(name)
            if there is None or there == here or (top == "zsml_jax" and there not in FLOOR and is_name(name, sources)):
                continue
            if there not in FLOOR:
                found.append(f"{where}: {name} is in no room of the house")
            elif FLOOR[there] > FLOOR[here]:
                found.append(f"{where}: {here} must not import from the higher floor of {there}")
            elif FLOOR[there] == FLOOR[here]:
                edges.setdefault(here, set()).add(there)
                if FLOOR[here] == METHODS:
                    found.append(f"{where}: the method rooms {here} and {there} must not use one another")
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        found.append(f"rooms of one floor import in a circle: {' -> '.join(error.args[1])}")
    return found


def is_name(name: str, sources: Mapping[str, str]) -> bool:
    """Whether ``zsml_jax.x`` is something defined in the package's ``__init__``, such as ``__version__``."""
    parts = name.split(".")
    return len(parts) == 2 and not any(m.startswith(f"{name}.") or m == name for m in sources)


def project() -> dict[str, str]:
    files = [path for top in ("zsml_jax", "experiments", "configs") for path in (ROOT / top).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text() for path in files}


def test_the_project_keeps_to_its_floors():
    sources = project()
    assert {"zsml_jax.typing", "zsml_jax.train.checkpoint", "experiments.runner"} <= set(sources)
    assert violations(sources) == []


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("zsml_jax.data.x", "from zsml_jax.models import load", "data must not import from the higher floor of models"),
        ("zsml_jax.data.x", "def f():\n  import zsml_jax.zeroshot.otter", "x:2: data must not import from the higher"),
        ("zsml_jax.data.x", "from ..models import bert", "higher floor of models"),
        ("zsml_jax.data.__init__", "from ..models.bert import Bert", "higher floor of models"),
        ("zsml_jax.data.x", "from zsml_jax import models", "higher floor of models"),
        ("zsml_jax.typing", "import zsml_jax.report.table", "typing must not import from the higher floor of report"),
        ("zsml_jax.__init__", "from zsml_jax.train import checkpoint", "higher floor of train"),
        ("zsml_jax.models.x", "import importlib\nimportlib.import_module('zsml_jax.zeroshot')", "x:2: models must not"),
        ("zsml_jax.zeroshot.x", "from zsml_jax.peft import more", "zeroshot and peft must not use one another"),
        ("zsml_jax.models.x", "from experiments import runner", "higher floor of experiments"),
        ("zsml_jax.zeroshot.x", "import flax.linen as nn", "zeroshot owns no parameters"),
        ("zsml_jax.train.x", "from flax import linen", "train owns no parameters"),
        ("zsml_jax.report.x", "from flax.linen import Dense", "report owns no parameters"),
        ("experiments.x", "from flax import linen as nn", "experiments owns no parameters"),
        ("zsml_jax.models.x", "import torch.nn", "torch must not be imported"),
        ("zsml_jax.models.x", "def f():\n  from transformers import AutoModel", "x:2: transformers must not"),
        ("zsml_jax.data.x", "import tensorflow as tf", "only zsml_jax.data.prepare imports tensorflow"),
        ("zsml_jax.data.prepare_more", "import tensorflow", "only zsml_jax.data.prepare imports tensorflow"),
        ("zsml_jax.models.x", "from orbax import checkpoint", "only zsml_jax.train.checkpoint imports orbax"),
        ("zsml_jax.utils.x", "", "utils is not a room of the house"),
        ("zsml_jax.data.x", "from zsml_jax.utils.y import z", "zsml_jax.utils.y.z is in no room"),
    ],
)
def test_the_checker_finds_each_kind_of_violation(module, source, message):
    (found,) = violations({module: source})
    assert message in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "zsml_jax.zeroshot.x",
            "from zsml_jax.models import load\nfrom zsml_jax.zeroshot.head import ClassHead\nimport flax",
        ),
        ("zsml_jax.models.x", "import flax.linen as nn\nfrom . import bert\nfrom zsml_jax.typing import Array"),
        ("zsml_jax.peft.x", "from flax import linen as nn\nfrom zsml_jax.transform import intercept"),
        ("zsml_jax.data.prepare", "import tensorflow"),
        ("zsml_jax.report.x", "from zsml_jax import __version__\nimport tensorflow_datasets"),
        ("experiments.x", "from configs.otter import bbc_news\nfrom zsml_jax.zeroshot import otter, loki"),
    ],
)
def test_the_checker_allows_what_the_plan_allows(module, source):
    assert violations({module: source}) == []


def test_the_checker_finds_circles_between_rooms_of_one_floor():
    train, report = "from zsml_jax.report import records", "from zsml_jax.train import checkpoint"
    assert violations({"zsml_jax.train.a": train}) == []
    (found,) = violations({"zsml_jax.train.a": train, "zsml_jax.report.b": report})
    assert "circle" in found
    longer = {"zsml_jax.train.a": train, "zsml_jax.report.b": "import zsml_jax.data", "zsml_jax.data.c": report}
    assert len(violations(longer)) == 1


def test_importing_the_package_stays_light():
    program = "import sys, zsml_jax; print(*sorted(m for m in sys.modules if '.' not in m))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    heavy = {"matplotlib", "tensorflow", "ot", "transformers", "torch", "orbax", "ott", "jax", "grain", "rich", "flax"}
    assert not heavy & set(out.split())


def test_importing_the_report_does_not_load_a_plotting_library():
    program = "import sys, zsml_jax.report.plot; assert not {'matplotlib', 'tensorboardX', 'wandb'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


@pytest.mark.parametrize("name", ["evaluate", "zeroshot"])
def test_importing_what_needs_no_model_does_not_load_the_models(name):
    program = f"import sys, zsml_jax.{name}; assert 'zsml_jax.models' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_the_names_of_evaluate_that_are_imported_when_used_are_all_of_its_names_that_are_not_there_yet():
    program = "from zsml_jax import evaluate as e; assert {n for n in e.__all__ if n not in vars(e)} == set(e._LATER)"
    subprocess.run([sys.executable, "-c", program + "; [getattr(e, n) for n in e.__all__]"], check=True, cwd=ROOT)

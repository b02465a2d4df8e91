"""Who may import whom. This table is the one in ARCHITECTURE.md; imports go one way, and the heavy libraries stay out."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "isomorph"
EVERYTHING = frozenset({"*"})

LAYERS: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "tensors": frozenset(),
    "collector": frozenset(),
    "stores": frozenset(),
    "language": frozenset(),
    "operators": frozenset({"language.tree"}),
    "formats": frozenset({"stores"}),
    "plan": frozenset({"language", "operators"}),
    "engine": frozenset(
        {"plan", "operators", "formats.base", "formats.zip.crc", "language.tree", "language.rules", "stores"}
    ),
    "verify": frozenset({"language", "formats", "operators.reference"}),
    "layouts": frozenset({"language", "plan"}),
    "describe": frozenset({"formats", "layouts"}),
    "trace": frozenset({"language", "plan", "engine", "verify", "operators.base", "formats.base", "formats.memory"}),
    "infer": frozenset({"language", "formats", "plan", "operators", "verify", "layouts"}),
    "job": frozenset(
        {
            "language",
            "formats",
            "plan",
            "operators",
            "engine",
            "verify",
            "layouts",
            "describe",
            "trace",
            "infer",
            "stores",
        }
    ),
    "demo": frozenset({"job", "testing"}),
    "statedict": frozenset({"formats", "describe"}),
    "boundplan": frozenset({"job", "formats", "engine", "plan", "describe"}),
    "api": frozenset(
        {
            "job",
            "statedict",
            "boundplan",
            "language",
            "formats",
            "plan",
            "engine",
            "verify",
            "layouts",
            "describe",
            "trace",
            "infer",
        }
    ),
    "models": frozenset({"api"}),
    "testing": frozenset({"language", "formats", "plan", "engine", "verify", "operators", "layouts"}),
    "torch": frozenset({"job"}),
    "paddle": frozenset({"job"}),
    "cli": EVERYTHING,
    "__init__": frozenset({"api", "statedict"}),
    "__main__": frozenset({"cli"}),
}
"""layer -> what it may import besides errors, tensors and collector; `a.b` allows only that module of `a`."""

HEAVY = ("torch", "jax", "paddle", "tensorflow")
MAY_IMPORT_HEAVY = {
    "job/arrays.py": {"torch", "paddle"},
    "job/into_paddle.py": {"paddle"},
    "job/into_torch.py": {"torch"},
    "job/reference_models.py": {"torch"},
    "models/__init__.py": {"torch"},
    "models/activations.py": {"torch"},
    "models/attention.py": {"torch"},
    "models/bert.py": {"torch"},
    "models/clip.py": {"torch"},
    "models/paddle_vit.py": {"paddle"},
    "models/t5.py": {"torch"},
    "models/vit.py": {"torch"},
    "trace/paddle_lift.py": {"paddle"},
    "trace/paddle_side.py": {"paddle"},
    "trace/torch_checks.py": {"torch"},
    "trace/torch_lift.py": {"torch"},
    "trace/torch_side.py": {"torch"},
}


def modules() -> dict[str, Path]:
    """Dotted name below `isomorph` -> its file."""
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path: Path, *, also_lazy: bool = True) -> set[str]:
    """What a file imports, as dotted names; imports under TYPE_CHECKING too. `also_lazy`: those inside functions as well."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if also_lazy else iter(tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                below = PACKAGE.parent.joinpath(*whole.split("."))
                found.add(whole if below.is_dir() or below.with_suffix(".py").exists() else str(node.module))
    return found


def layer_of(module: str) -> str:
    return module.partition(".")[0]


def test_every_module_belongs_to_a_layer() -> None:
    """A new package is put into the table, here and in ARCHITECTURE.md."""
    assert set() == {layer_of(module) for module in modules()} - set(LAYERS)


def test_layers_import_only_what_the_table_allows() -> None:
    """A forbidden import is named with its file."""
    forbidden = []
    for module, path in modules().items():
        layer = layer_of(module)
        allowed = LAYERS[layer]
        for name in imports(path):
            if not name.startswith("isomorph.") or allowed == EVERYTHING:
                continue
            target = name.removeprefix("isomorph.")
            if target.startswith("__") or layer_of(target) in {layer, "errors", "tensors", "collector"}:
                continue
            if layer_of(target) in allowed or any(target == one or target.startswith(one + ".") for one in allowed):
                continue
            forbidden.append(f"{module} imports {target}")
    assert forbidden == []


def test_no_cycle_among_layers() -> None:
    """The table itself has no cycle (cli, which may import everything, is imported by no layer)."""
    graph = {
        layer: {layer_of(one) for one in allowed} - {layer}
        for layer, allowed in LAYERS.items()
        if allowed != EVERYTHING
    }
    done: set[str] = set()
    while len(done) < len(graph):
        ready = {layer for layer, needs in graph.items() if layer not in done and needs <= done | {"cli"}}
        assert ready, f"a cycle among {sorted(set(graph) - done)}"
        done |= ready


def test_no_cycle_among_modules() -> None:
    """Imports at the top of modules form no cycle, so that any module can be imported first."""
    names = modules()
    graph = {}
    for module, path in names.items():
        wanted = {
            name.removeprefix("isomorph.") for name in imports(path, also_lazy=False) if name.startswith("isomorph.")
        }
        graph[module] = {name for name in wanted if name in names and name != module}
    done: set[str] = set()
    while len(done) < len(graph):
        ready = {module for module, needs in graph.items() if module not in done and needs <= done}
        assert ready, f"a cycle among {sorted(set(graph) - done)}"
        done |= ready


def test_heavy_libraries_are_imported_nowhere_else() -> None:
    """torch, jax, paddle and tensorflow appear only where arrays are handed to those who hold them already, in models, in a trace."""
    found = {
        str(path.relative_to(PACKAGE)): heavy
        for path in modules().values()
        if (heavy := {name.partition(".")[0] for name in imports(path)} & set(HEAVY))
    }
    assert found == MAY_IMPORT_HEAVY


def test_the_table_is_in_the_architecture_document() -> None:
    """ARCHITECTURE.md has a row for every layer."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert [layer for layer in LAYERS if not layer.startswith("__") and f"| {layer} |" not in text] == []


SCRIPT = """
import sys
from isomorph.cli.app import run
code = run(sys.argv[1:]) if sys.argv[1:] else __import__("isomorph") and 0
loaded = [name for name in ("torch", "jax", "paddle", "tensorflow", "safetensors", "rich") if name in sys.modules]
assert not loaded, loaded
sys.exit(code)
"""

MORPH = "{p=q|k}.w [o i] <-> w [(p o) i]\n"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small checkpoint, a morph, and its target."""
    import numpy as np

    folder = tmp_path_factory.mktemp("port")
    np.savez(folder / "source.npz", **{"q.w": np.ones((2, 3), "f4"), "k.w": np.zeros((2, 3), "f4")})
    np.savez(folder / "target.npz", w=np.concatenate([np.ones((2, 3), "f4"), np.zeros((2, 3), "f4")]))
    (folder / "port.morph").write_text(MORPH)
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["inspect", "source.npz"],
        ["plan", "source.npz", "-m", "port.morph"],
        ["convert", "source.npz", "out.safetensors", "-m", "port.morph", "--overwrite"],
        ["verify", "source.npz", "target.npz", "-m", "port.morph"],
    ],
    ids=lambda arguments: " ".join(arguments[:1]) or "import",
)
def test_a_fresh_interpreter_loads_no_heavy_library(port: Path, arguments: list[str]) -> None:
    """Neither importing isomorph nor running a command loads torch, jax, paddle, tensorflow or safetensors."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        cwd=port,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_help_and_inspect_load_no_arrays() -> None:
    """The start-up budget: `--help` loads neither numpy nor ml_dtypes."""
    script = (
        "import sys\nfrom isomorph.cli.app import run\nrun(['--help'])\n"
        "assert not {'numpy', 'ml_dtypes', 'rich'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")

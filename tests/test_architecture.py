"""The house rules of the package's structure, held over its syntax trees."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cometbatch"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
# From the words at the bottom to the commands at the top: a module imports only from layers below its own.
LAYERS = (
    ("errors", "records", "money"),
    ("wire", "template", "retry", "pricing", "pacing", "latency", "sustained", "budget", "doubt", "output"),
    ("job",),
    ("source", "checkpoint", "parts", "limits", "transport", "progress", "loop", "simulator"),
    ("manifest",),
    ("summary", "partition", "reading", "runner", "evidence"),
    ("resume", "reopen", "preflight"),
    ("batch", "planning", "report", "verification"),
    ("", "cli"),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
CORE = (
    "records",
    "money",
    "template",
    "wire",
    "retry",
    "pricing",
    "pacing",
    "latency",
    "sustained",
    "budget",
    "doubt",
    "output",
)
FORBIDDEN_IN_CORE = {"asyncio", "time", "random", "os", "pathlib", "httpx", "threading", "socket"}
OWNERS = {
    "aiohappyeyeballs": {"transport"},
    "aiolimiter": {"limits"},
    "click": {"cli"},
    "httptools": {"transport"},
    "jinja2": {"template"},
    "polars": {"report"},
    "tqdm": {"progress"},
    "uvicorn": {"simulator"},
    "uvloop": {"loop"},
    "yaml": {"job"},
    "fcntl": {"checkpoint"},
}


LOADED_LATE = {  # a twentieth of a second together, of the third that a start takes
    "aiolimiter",
    "httpx",
    "urllib.request",
    "cometbatch.transport.httpx_lane",
    "cometbatch.simulator.app",
}


def home(module: str) -> str:
    """The place of a module among the layers: its name below the package, folders taken whole."""
    return module.removeprefix("cometbatch").lstrip(".").partition(".")[0]


def imports(path: Path) -> set[str]:
    """Every module that a file imports when it is loaded; what only the type checker reads is left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checking = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and id(node) not in checking:
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and id(node) not in checking:
            assert node.level == 0, f"{path}: relative imports hide which way they run"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def ours(names: set[str]) -> set[str]:
    """The modules of this package among imported names."""
    found = set()
    for name in names:
        if name.split(".")[0] == "cometbatch":
            found.add(name if name in MODULES else name.rpartition(".")[0])
    return found


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_run_one_way(module: str) -> None:
    """A module imports only from layers below its own, or from its own folder."""
    for imported in ours(imports(MODULES[module])):
        if home(imported) == home(module) and home(module) in ("wire", "simulator", "job", "transport"):
            continue
        if imported == "cometbatch":  # the lazy face: nothing is loaded until a name is asked for
            assert home(module) in ("cli", "batch")
            continue
        if {home(module), home(imported)} <= {"records", "errors"}:
            continue
        assert LEVEL[home(imported)] <= LEVEL[home(module)], f"{module} imports {imported}"


def test_there_is_no_cycle() -> None:
    """No module imports itself through others."""
    graph = {module: ours(imports(path)) - {"cometbatch"} for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for imported in graph.get(module, ()):
                visit(imported, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", sorted(module for module in MODULES if home(module) in CORE))
def test_the_core_does_no_io(module: str) -> None:
    """Core modules know neither clock, chance, files nor the event loop."""
    assert not {name.split(".")[0] for name in imports(MODULES[module])} & FORBIDDEN_IN_CORE


@pytest.mark.parametrize("library", sorted(OWNERS))
def test_each_outside_library_has_one_owner(library: str) -> None:
    """What a library is like is known in one place."""
    users = {
        home(module) for module, path in MODULES.items() if any(name.split(".")[0] == library for name in imports(path))
    }
    assert users == OWNERS[library]


def test_adapters_do_not_import_each_other() -> None:
    """Adapters meet only where they are put together."""
    adapters = {"source", "checkpoint", "parts", "limits", "transport", "progress", "loop"}
    for module, path in MODULES.items():
        if home(module) in adapters:
            assert not {home(imported) for imported in ours(imports(path))} & (adapters - {home(module)}), module


def test_only_the_composition_root_and_the_cli_know_the_simulator() -> None:
    """Nothing that runs a job can tell a simulated service from the real one."""
    users = {
        home(module)
        for module, path in MODULES.items()
        if home(module) != "simulator" and any(home(name) == "simulator" for name in ours(imports(path)))
    }
    assert users <= {"batch", "planning", "preflight"}


def test_the_simulator_speaks_only_through_wire_and_records() -> None:
    """It can't know how the client retries, prices or counts."""
    for module, path in MODULES.items():
        if home(module) == "simulator":
            assert {home(name) for name in ours(imports(path))} <= {"simulator", "wire", "records", "errors"}, module


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_import_hides_in_a_function(module: str) -> None:
    """What a module needs stands at its top, but for what takes long to load and most runs do not need."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            nested = [child for child in ast.walk(node) if isinstance(child, ast.Import | ast.ImportFrom)]
            names = {each.module if isinstance(each, ast.ImportFrom) else each.names[0].name for each in nested}
            assert names <= LOADED_LATE, f"{module}.{node.name}"


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    """A helper lives with its owner."""
    assert not {path.stem for path in MODULES.values()} & {"utils", "helpers", "common", "base", "misc"}

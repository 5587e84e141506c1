"""The house rules of the package's structure, held over its syntax trees, by folder."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cometbatch"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
# From the words at the bottom to the commands at the top. A room imports from rooms of lower lines and from itself,
# never from another room of its own line: what one needs of another is handed in.
LAYERS = (
    ("errors", "version"),
    ("records",),
    ("prompt", "money", "input", "store"),
    ("wire", "control", "results"),
    ("job",),
    ("run_state",),
    ("transport", "limiting"),
    ("service", "telemetry"),  # telemetry goes out on a route of its own, which transport finds
    ("runner", "simulator"),
    ("engines",),
    ("evaluation",),
    ("reports",),
    ("commands",),
    ("", "process"),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
PURE = ("records", "prompt", "money", "wire", "control", "evaluation")
FORBIDDEN_IN_PURE = {"asyncio", "time", "random", "os", "pathlib", "httpx", "threading", "socket"}
SIMULATOR_MAY_IMPORT = {"simulator", "wire", "records", "errors"}
OWNERS = {
    "aiohappyeyeballs": {"transport"},
    "aiolimiter": {"limiting"},
    "click": {"cli"},
    "fcntl": {"store"},
    "httptools": {"transport"},
    "jinja2": {"prompt"},
    "opentelemetry": {"telemetry"},
    "jsonschema_rs": {"prompt"},
    "numpy": {"evaluation", "reports"},
    "polars": {"commands", "evaluation", "reports", "results"},  # tables, patterns of linear time, sums, sorting
    "requests": {"telemetry"},
    "scipy": {"evaluation"},
    "tqdm": {"commands"},
    "uvicorn": {"simulator"},
    "ray": {"engines"},
    "uvloop": {"engines"},
    "yaml": {"job"},
}
LOADED_LATE = {  # a twentieth of a second together, of the third that a start takes
    "cometbatch.commands.leaderboard",
    "cometbatch.commands.scoring",
    "cometbatch.commands.worker_session",
    "cometbatch.evaluation.score_columns",
    "aiolimiter",
    "httpx",
    "jsonschema_rs",
    "pandas",
    "ray",
    "tqdm.notebook",
    "urllib.request",
    "cometbatch.evaluation.statistics.means",
    "cometbatch.evaluation.statistics.sums",
    "cometbatch.reports.inference",
    "cometbatch.reports.judge_statistics",
    "cometbatch.telemetry.exporting",
    "cometbatch.transport.httpx_backend",
    "cometbatch.simulator.app",
}


def room(module: str) -> str:
    """The folder of a module, or the module itself where it lies at the package's root."""
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
    """A module imports from its own room and from rooms below; the face, which loads names late, from nowhere."""
    for imported in ours(imports(MODULES[module])):
        if room(imported) == room(module):
            continue
        if imported == "cometbatch":
            assert room(module) == "cli", f"{module} imports the face"
            continue
        assert LEVEL[room(imported)] < LEVEL[room(module)], f"{module} imports {imported}"


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


@pytest.mark.parametrize("module", sorted(module for module in MODULES if room(module) in PURE))
def test_pure_rooms_do_no_io(module: str) -> None:
    """They know neither clock, chance, files nor the event loop."""
    assert not {name.split(".")[0] for name in imports(MODULES[module])} & FORBIDDEN_IN_PURE


@pytest.mark.parametrize("library", sorted(OWNERS))
def test_each_outside_library_has_one_owner(library: str) -> None:
    """What a library is like is known in one room."""
    users = {
        room(module) for module, path in MODULES.items() if any(name.split(".")[0] == library for name in imports(path))
    }
    assert users == OWNERS[library]


def test_the_simulator_speaks_only_through_wire_and_records() -> None:
    """It can't know how the client retries, prices or counts."""
    for module, path in MODULES.items():
        if room(module) == "simulator":
            assert {room(name) for name in ours(imports(path))} <= SIMULATOR_MAY_IMPORT, module


def test_only_engines_and_commands_start_the_simulator() -> None:
    """Nothing that runs a job can tell a simulated service from the real one."""
    users = {
        room(module)
        for module, path in MODULES.items()
        if room(module) != "simulator" and any(room(name) == "simulator" for name in ours(imports(path)))
    }
    assert users <= {"engines", "commands"}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_import_hides_in_a_function(module: str) -> None:
    """A module's imports stand at its top, except those that take long to load and that most runs do not need.

    The command's first module loads the rest only when Ctrl-C is handled.
    """
    loaded_late = LOADED_LATE | ({"cometbatch.cli"} if module == "cometbatch.__main__" else set())
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            nested = [child for child in ast.walk(node) if isinstance(child, ast.Import | ast.ImportFrom)]
            names = {each.module if isinstance(each, ast.ImportFrom) else each.names[0].name for each in nested}
            assert names <= loaded_late, f"{module}.{node.name}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_module_goes_by_a_second_name(module: str) -> None:
    """Who searches for a module's name finds all its users: where it would clash, one of them is renamed."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            renamed = [each for each in node.names if each.asname not in (None, each.name)]
            assert not {f"{node.module}.{each.name}" for each in renamed} & MODULES.keys()


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    """A helper lives with its owner."""
    assert not {path.stem for path in MODULES.values()} & {"utils", "helpers", "common", "base", "misc"}


MAX_FILE_LINES, MAX_CLASS_LINES, MAX_METHODS, MAX_FUNCTION_LINES, MAX_ROOT_FILES = 600, 250, 20, 60, 8


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_is_too_large_to_be_read_at_once(module: str) -> None:
    """Files, classes and functions stay within what a reader can hold: beyond that they have several tasks."""
    text = MODULES[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            assert len(methods) <= MAX_METHODS, f"{node.name} has {len(methods)} methods"
            assert lines_of(node) <= MAX_CLASS_LINES, f"{node.name} has {lines_of(node)} lines"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert lines_of(node) <= MAX_FUNCTION_LINES, f"{node.name} has {lines_of(node)} lines"


def lines_of(node: ast.stmt) -> int:
    """How many lines a definition takes."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_few_files_lie_beside_the_folders() -> None:
    """A newcomer sees folders, each for one concern."""
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= MAX_ROOT_FILES

"""Imports go down, floor by floor; a room may use only rooms of lower floors and its own cupboard."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "extproc"

# The first part of a module's name below `extproc` decides; later lines may import earlier ones.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "model", "pb"),
    ("decision",),
    ("formats", "measure"),
    ("policy",),
    ("understand",),
    ("session",),
    ("settings",),
    ("wire", "store", "telemetry", "reload", "state", "envoy_config"),
    ("ledger",),
    ("questions",),
    ("intake", "accesslog", "keeping"),
    ("edge",),
    ("errands",),
    ("exchange", "rehearsal"),
    ("server", "admin", "console", "budgets", "gauges", "leases", "pauses"),
    ("serve", "workers"),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> dict[str, Path]:
    paths = (path for path in PACKAGE.rglob("*.py") if "pb" not in path.parts)
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides which floor it reaches"
            base = node.module or ""
            found |= {f"{base}.{alias.name}" for alias in node.names} if base == "extproc" else {base}
    return {name for name in found if name.startswith("extproc.")}


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_room_has_a_floor() -> None:
    rooms = {room(name) for name in modules() if name != "extproc.__init__"}

    assert rooms <= FLOOR_OF.keys() | {"__init__"}


def test_imports_only_go_down() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, path in modules().items()
        for target in imported(path)
        if room(name) != room(target) and FLOOR_OF[room(target)] >= FLOOR_OF.get(room(name), len(FLOORS))
    ]

    assert wrong == []


def test_the_pure_floors_own_no_clock_and_do_no_io() -> None:
    """Time, ids and randomness are arguments there; `measure` may read vocabulary files."""
    banned = {"time", "uuid", "random", "secrets", "asyncio", "socket", "threading", "grpc", "os"}
    wrong = []
    for name, path in modules().items():
        if FLOOR_OF.get(room(name), 0) > FLOOR_OF["session"] or room(name) == "measure":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            wrong += [f"{name} imports {n}" for n in names if n.split(".")[0] in banned]

    assert wrong == []


def test_the_envoy_folder_holds_no_python() -> None:
    """Two wheels install into the top-level package `envoy`; a module of ours there would shadow them."""
    assert list((ROOT / "envoy").rglob("*.py")) == []

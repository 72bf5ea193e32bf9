"""The committed code of our protos is what the generator makes of them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMITTED = ROOT / "extproc" / "pb"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make proto` would write now."""
    folder = tmp_path_factory.mktemp("pb")
    protos = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "proto").rglob("*.proto"))]
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-Iproto"),
            *(f"--python_out={folder}", f"--pyi_out={folder}", *protos),
        ],
        cwd=ROOT,
        check=True,
    )
    return folder


def files(folder: Path) -> dict[str, str]:
    """Generated files by path; a package's `__init__.py` is ours."""
    found = {*folder.rglob("*.py"), *folder.rglob("*.pyi")}
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(found)
        if path.name != "__init__.py"
    }


def test_every_proto_has_its_code_and_no_code_lost_its_proto(generated: Path) -> None:
    assert files(COMMITTED).keys() == files(generated).keys()
    assert files(generated)


def test_the_committed_code_is_what_the_generator_writes(generated: Path) -> None:
    fresh = files(generated)
    stale = [name for name, text in files(COMMITTED).items() if text != fresh.get(name)]

    assert stale == [], "run `make proto`"

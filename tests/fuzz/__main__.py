"""Fuzzes one parser, guided by coverage: `python -m tests.fuzz TARGET [--seconds N]`.

Ends at the first broken promise with the input that broke it; that one belongs into `findings`.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-untyped]  # its wheel has no types

with atheris.instrument_imports(include=["extproc.formats", "multipart"]):
    from tests.fuzz.seeds import seeds
    from tests.fuzz.targets import TARGETS

ARTIFACTS = Path(__file__).parent.parent.parent / ".run/fuzz"


def main() -> None:
    """Run until the time is over."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("target", choices=sorted(TARGETS))
    arguments.add_argument("--seconds", type=int, default=60)
    chosen = arguments.parse_args()
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(seeds(chosen.target)):
            Path(corpus, str(number)).write_bytes(data)
        # It ends the process by itself.
        atheris.Setup(
            [
                sys.argv[0],
                corpus,
                f"-max_total_time={chosen.seconds}",
                f"-artifact_prefix={ARTIFACTS}/",
                "-max_len=2000",
                "-timeout=10",
                "-print_final_stats=1",
            ],
            TARGETS[chosen.target],
        )
        atheris.Fuzz()


main()

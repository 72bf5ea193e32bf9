"""`python -m tests.readme` rewrites README.md; with `--check` it prints the difference and exits 1."""

import sys

from tests.readme import document


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 the file is true now, 1 it was not (`--check`), 2 wrong usage."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python -m tests.readme [--check]\n")
        return 2
    written = document.PATH.read_text()
    true = document.render(written)
    if arguments:
        difference = document.difference(written, true)
        sys.stdout.write(difference)
        return 1 if difference else 0
    document.PATH.write_text(true)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

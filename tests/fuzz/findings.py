"""Inputs that broke a promise once: a target's name, and what was fed to it."""

FINDINGS: tuple[tuple[str, bytes], ...] = (
    # A refusal told the name of a query parameter, which may be any text.
    ("classify", b"\x1a\x06\x00\x00\xcb?\x82"),
)

"""Inputs that broke a promise once: a target's name, and what was fed to it."""

FINDINGS: tuple[tuple[str, bytes], ...] = ()

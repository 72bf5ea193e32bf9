"""The console: what a sidecar does and what its ledger says, as pages for a browser on the admin port.

Floor 3. Nothing is decided or computed here: `pages` asks the policy folder and the ledger, `templates` shows
their own sentences in the frame of `frame.html.j2`, `forms` and `links` say how one page leads to another.
"""

from extproc.console.pages import Console

__all__ = ["Console"]

"""What README.md shows is run, not written: `python -m tests.readme` rewrites its generated blocks.

`document` finds the blocks; `samples` fills those that need no process; `live` and its neighbours fill
the rest from two running stacks; `normal` takes out what differs from run to run.
"""

import os

# Before gRPC is imported: a process started from one that serves gRPC would abort in gRPC's fork handlers.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

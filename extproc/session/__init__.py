"""The machine: events in, actions out. Read `events`, `transitions`, `session`, in this order."""

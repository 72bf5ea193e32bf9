"""The machine: events in, actions out. Read `events`, `actions`, `transitions`, `session`, in this order."""

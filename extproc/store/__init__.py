"""Counter stores: `base` is the promise, every other file keeps it."""

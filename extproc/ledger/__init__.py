"""The ledger: a record of every decision and what it came to, in SQLite or Postgres."""

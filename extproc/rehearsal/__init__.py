"""Policies tried out without Envoy: requests of a test file, and requests of the ledger.

Floor 3. The session, the store in memory and the arithmetic are those that serve; what is here feeds them
and reads the decision. `stage` runs one request. `extproc test` is `written`, `cases` and `trial`;
`extproc replay` is `recorded`, `again` with its `counts` and `doubts`, `replay` and `report`.
"""

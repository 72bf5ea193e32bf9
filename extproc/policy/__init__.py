"""The policy floor: a folder of YAML becomes a `PolicySet`, a request becomes a `Decision`.

Loading: `documents` (YAML with positions), `schema` (a document into a spec), `kinds` (the specs),
`cel` and `literals` (expressions), `policyset` (the folder as a whole).
Deciding: `engine` walks one request through `kinds.identity`, `access`, `sizes` and, by an `attempt`,
`metering`, over `facts`; `denials` finds the words, `verdict` and `findings` keep the reasons.
Counting: `counters` is the arithmetic of every store, `accounting` the settlement table.
"""

"""The policy floor: a folder of YAML becomes a `PolicySet`, a request becomes a `Decision`.

Loading: `documents` (YAML with positions), `schema` (a document into a spec), `kinds` (the specs),
`cel` and `literals` (expressions), `policyset` (the folder as a whole).
Deciding: `engine` walks one request through `kinds.identity`, `access` and `metering`, over
`facts`; `denials` finds the words, `findings` keeps the reasons.
Counting: `counters` is the arithmetic of every store, `accounting` the settlement table.
"""

"""Questions to the ledger: why was this blocked, what was decided, where did the tokens go.

Floor 3. `base` has the questions and answers as values; `reader` asks the tables, `remote` a running
sidecar; `explanation` makes a story of a decision, `sections` and `cells` put answers into words, `page`,
`text` and `spreadsheet` print them; `http` and `callers` answer those who ask by HTTP.
"""

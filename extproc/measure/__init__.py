"""How large a request is and how large an answer may be: vocabularies, counts, ceilings.

Floor 1. Pure but for reading vocabulary files from a folder; only `vocab.fetch` may use the network,
and only the command `extproc vocab` calls it. A `Tokenizer` is an argument everywhere: no state of a
module decides a count.
"""

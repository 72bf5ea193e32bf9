"""What a demonstration needs around the sidecar: a provider that costs nothing, and how to start it all.

`provider` is the server and `endpoints` its paths. They ask a `dialect` what was asked for, have
`generation` invent an answer, let `faults` spoil it, send it as an `answers.Answer` and keep `books`.
"""

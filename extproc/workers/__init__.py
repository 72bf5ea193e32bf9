"""`extproc serve --workers N`: N processes, one supervisor, one admin port.

Floor 4. `supervisor` starts workers, keeps them running and ends them; `worker` is one of its places
and the process in it; `admin` answers for all of them. With one worker there is none of this.

Who owns what:

    policies    every worker: it loads and follows the folder itself. A set compiles in milliseconds,
                and one that lags behind is seen in `/readyz`, as a notice, a log record and a gauge.
    counters    the store, which all share; that is why `memory:` does not go with several workers.
    ledger      every worker writes with its own connection and under the name of its endpoint: the
                next process in the place ends what its predecessor left open.
    learned     every worker, in a folder of its own below `--state`.
    endpoint    every worker: Envoy keeps one connection to each, where a shared one would starve some.
    admin       the supervisor: the port and its guard. Workers answer it on sockets in a private folder.
    metrics     every worker counts; the supervisor adds up, and keeps what ended workers counted.
"""

from extproc.workers.supervisor import Supervisor

__all__ = ["Supervisor"]

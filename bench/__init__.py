"""What the policy costs: the same load on Envoy alone, with an empty ext_proc server, and with ours.

`python -m bench` runs it. A *row* is one way to run Envoy, a *workload* one kind of request, a *cell*
one row under one workload in one round. Rows take turns within a round, so that a noisy minute falls
on all of them. `python -m bench.policies` measures decisions alone, without Envoy.
"""

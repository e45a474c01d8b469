"""The running system under load and faults, judged by the ledger that its clients keep.

soak.py             one run: stack, load, acts, verdict and report. Start here.
stack.py            the system of a run: two orchestrators, a proxy on each link, and a supervisor
load.py             clients that make visit after visit
visits.py           the visits of customers, staff and gates, as scenarios of the public API
client.py           a client that repeats a request until it has a final answer
ledger.py           the facts that answers acknowledged
end_state.py        the facts in the databases when the run has ended
judge.py            compares both, and names every difference
nemesis.py          the acts: kills, freezes, partitions and others, in an order that the seed decides
growth.py           memory, descriptors, threads and sessions
test_judge.py       breaks every kind of fact by hand
test_controls.py    negative controls with the running system
__main__.py         `make chaos`
"""

"""A simulator of the service: the embedded default for trying a job, the test server, and a tool of its own.

behaviour: what goes wrong and how often. catalog: the models. answers: what a model says. faults and quirks: how the
service says it. ledger: what the server counted. app: the ASGI application. server and process: running it.
"""

from cometbatch.simulator.behaviour import FAULTS, Behaviour, Fault, parse_fault, parse_latency

__all__ = ["FAULTS", "Behaviour", "Fault", "parse_fault", "parse_latency"]

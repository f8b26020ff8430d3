"""Real processes under kills: what was asked for happens once, ends, and is told in order.

    uv run python -m tests.chaos --kills 500 [--seed N] [--json]
    uv run python -m tests.chaos --self-test

Two servers, five workers, PostgreSQL and Valkey run on this machine, with AWS (the simulator) behind a proxy that loses
answers, delays, throttles and fails. Accounts are requested over GraphQL at a steady rate and followed over WebSockets
by clients that come and go, while a plan drawn from the seed kills one process after the other. The self-test puts
faults into the product, one at a time, and demands that a run finds each.
"""

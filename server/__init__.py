"""Freehold's API and the domain it shares with the workers.

`workers` imports `config`, `database`, `models`, `jobs`, `errors` and each domain's `models` and `service` from here;
nothing here imports `workers`. `tests/test_architecture.py` holds these arrows.
"""

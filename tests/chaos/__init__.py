"""Disturbances of a whole system under load, each with a command: `python -m tests.chaos kill`.

`ground` is the system under load; a module for each disturbance; `run` brings one to it, waits for quiet and checks it
from outside; `__main__` is the command.
"""

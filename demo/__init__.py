"""The demo and `nodrop up`: all processes on this machine, with embedded Postgres and Redis and simulated channels.

command     `nodrop demo`: options, exit code          up          `nodrop up`
run         orders, settling, reconciliation           accidents   kill, flush and restart during a run
stack       all processes together                     service     one process
books       nodrop's rows for the oracle               report      figures of a run
shop/       the example shop of `nodrop up`
embedded/   Postgres and Redis as child processes
"""

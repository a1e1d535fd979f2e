"""Workers with jobs that do nothing, in nodrop's own environment: its lane, stock arq, and a Lua loop as the bound.

The libraries of others are in `bench.peers.queue`. Each is run as `python -m bench.noop.NAME work|produce`.
"""

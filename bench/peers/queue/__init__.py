"""Workers of delay queues with jobs that do nothing, each run as `python -m bench.peers.queue.NAME work|produce`.

What they share is in `plan.py` and needs the standard library alone: most of them run in an environment of their own.
"""

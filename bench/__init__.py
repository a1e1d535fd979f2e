"""Benchmarks of nodrop's real processes, with the facts of the machine, as JSON.

orders callbacks queries rearm footprint sweep reconcile channels     one benchmark each
rig buyer clones loops                                               the stack, clients and load
machine cpu certificates report sizes                                what is measured on, and the results
"""

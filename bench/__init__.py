"""Benchmarks of nodrop's real processes, with the facts of the machine, as JSON.

orders callbacks queries backlog rearm footprint sweep merchants door
reconcile channels usual growth queue limit pages                    one benchmark each
rig buyer clones loops                                               the stack, clients and load
peers                                                                what others use, installed apart from nodrop
machine cpu counts profile sampled certificates                      what is measured on, and where time goes
report rounds chart page sizes                                       the results, and the sizes
"""

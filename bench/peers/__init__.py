"""Services and queues that others use, for comparison: a folder and a lock each, installed apart from nodrop.

Nothing here imports nodrop, and of nodrop only `bench` starts it, as processes of another interpreter (`environment`).
"""

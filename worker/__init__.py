"""The worker process: lanes of jobs, the sweep, and what supervises them."""

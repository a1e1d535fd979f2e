"""The worker process: lanes of jobs, periodic work, and their supervision."""

"""What outlives a process. Postgres remembers, Redis reminds: flush Redis and nothing acknowledged is lost, only
late.
"""

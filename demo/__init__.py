"""The demo and `nodrop up`: all processes on this machine, with embedded Postgres and Redis and simulated channels."""

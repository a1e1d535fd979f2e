"""The parts of a process: opened resources, accounts, logging, periodic loops and process exit."""

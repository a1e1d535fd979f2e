"""A world in one process: the real service among simulated channels, merchant, shoppers and faults, in virtual time."""

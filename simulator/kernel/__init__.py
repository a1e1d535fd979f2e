"""The simulated far side without any wire format: ledger, faults, callbacks, clock and control API."""

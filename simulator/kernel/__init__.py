"""Parts that all channels share: ledger, faults, callbacks, clock and control API. No wire format."""

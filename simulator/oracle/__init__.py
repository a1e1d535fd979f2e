"""The oracle: `invariants` compares ledger, merchant and nodrop's own rows, which are in `books`."""

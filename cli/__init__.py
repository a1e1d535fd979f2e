"""`nodrop …`: the commands of operators.

    __main__          every command by name, imported when it is called
    environment       settings, database and resources of one command; expected faults as one line
    output            tables, JSON and exit codes
    accounts/         accounts at channels: their files, checks and new keys; `findings` are its results and config's
    config/           checks of the variables and of the stores
    explain/          the proof in a callback or an answer, check by check
    orders/           look at orders; query, close, accept and refund
    cases, days, dead_letters, disputes, keys, migrations, reconcile    one command group each

Results go to standard output, faults as one line to standard error.
"""

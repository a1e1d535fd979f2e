"""Keys of admission. Those of one account share a hash tag: no script needs two slots, and accounts spread over a
cluster.

    nodrop:{admission:<account>}:calls  sorted set: reservation → end of its call, Unix milliseconds by Redis's clock;
                                        while it is under way, the latest end that is waited for. To that the number of
                                        its log times `script.SPAN` is added: 1 fresh calls and those for strangers,
                                        2 scheduled ones, 3 refreshes and background ones
    nodrop:{admission:<account>}:state  hash, its times in the same milliseconds; '' is a field that is not there:

        generation         when Redis was last found without the account's calls
        server             run of the server that the script was gone from at last
        quiet              end of the time in which no call is admitted
        fresh_until        end of the time in which the share of fresh calls is kept
        background         when the next background call may be made
        queue              when the next refused background call may return
        stranger           when the next call for a stranger may be made
        line:<kind>        when the next refused scheduled call may return
        until:<kind>       when the breaker becomes half open; missing: it is closed
        length:<kind>      for how long it was opened
        probe:<kind>       until when its probe is waited for
        unanswered:<kind>  times of the last unanswered calls in a row
"""

from __future__ import annotations

from functools import lru_cache

ACCOUNTS_MAX = 1000


@lru_cache(ACCOUNTS_MAX)
def keys_of(account: str) -> tuple[str, str]:
    """State and calls."""
    return state_key(account), calls_key(account)


def state_key(account: str) -> str:
    return f"nodrop:{{admission:{account}}}:state"


def calls_key(account: str) -> str:
    return f"nodrop:{{admission:{account}}}:calls"

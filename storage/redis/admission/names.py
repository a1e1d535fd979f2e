"""Keys of admission. Those of one account share a hash tag: no script needs two slots, and accounts spread over a
cluster.

    nodrop:{admission:<account>}:generation  time when Redis was last found without the account's calls
    nodrop:{admission:<account>}:quiet       exists while no call is admitted
    nodrop:{admission:<account>}:fresh       sorted set: reservation → end of its call, Unix milliseconds by Redis's
                                             clock; while it is under way, the latest end that is waited for
                                             (…:scheduled and …:refresh likewise; background calls are in refresh,
                                             those for strangers in fresh)
    nodrop:{admission:<account>}:asked       exists while the share of fresh calls is kept
    nodrop:{admission:<account>}:background  time at which the next background call may be made
    nodrop:{admission:<account>}:queue       time at which the next refused background call may return
    nodrop:{admission:<account>}:stranger    time at which the next call for a stranger may be made
    nodrop:{admission:<account>}:line:<kind>        time at which the next refused scheduled call may return
    nodrop:{admission:<account>}:breaker:<kind>     hash: until, length, probe; missing: closed
    nodrop:{admission:<account>}:unanswered:<kind>  list: times of the last unanswered calls in a row

The release before has one hash tag for all accounts, and one generation and one `quiet`. While processes of it run, the
calls count under its names too.
"""

from __future__ import annotations

from typing import NamedTuple


class Names(NamedTuple):
    """Beginning of the keys of one account, and of those that tell what Redis has forgotten."""

    account: str
    memory: str

    @property
    def generation(self) -> str:
        return self.memory + "generation"

    @property
    def quiet(self) -> str:
        return self.memory + "quiet"

    def of(self, *names: str) -> list[str]:
        return [self.account + name for name in names]


def names_of(account: str) -> Names:
    """Names of this release."""
    prefix = f"nodrop:{{admission:{account}}}:"
    return Names(prefix, prefix)


def older_names_of(account: str) -> Names:
    """Names of the release before."""
    memory = "nodrop:{admission}:"
    return Names(f"{memory}{account}:", memory)

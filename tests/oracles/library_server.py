"""The library's process. It runs in .oracles/sdks and imports nothing else of ours."""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any


def serve(acts: Mapping[str, Callable[..., Any]]) -> None:
    """Run the action of each line until the input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"returned": acts[request.pop("do")](**request)}
        except Exception as error:  # noqa: BLE001 - whatever the library raises is its testimony
            reply = {"raised": type(error).__name__, "words": str(error)[:500]}
        print(json.dumps(reply), flush=True)

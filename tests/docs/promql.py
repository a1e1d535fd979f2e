"""PromQL as far as our rules and panels use it: a parser that says which series an expression reads, with its labels.

https://prometheus.io/docs/prometheus/latest/querying/basics/
"""

import re
from typing import NamedTuple

_TOKEN = re.compile(
    r"""\s*(?:(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<number>\d+(?:\.\d+)?)|(?P<string>"(?:[^"\\]|\\.)*")"""
    r"""|(?P<range>\[\d+[smhd]\])|(?P<sign>=~|!~|!=|==|>=|<=|[-+*/(){},=<>]))"""
)
AGGREGATIONS = {"sum", "max", "min", "avg", "count"}
OVER_RANGES = {"rate", "increase"}
FUNCTIONS = OVER_RANGES | {"abs", "histogram_quantile"}
OPERATORS = {"+", "-", "*", "/", ">", "<", ">=", "<=", "==", "!="}
MATCHERS = {"=", "!=", "=~", "!~"}


class Series(NamedTuple):
    """A selector: its metric, the labels that it matches or that are kept around it, and whether it has a range."""

    metric: str
    labels: frozenset[str]
    has_range: bool


class Parser:
    """Reads one expression. Raises SyntaxError: it is none that this knows."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.series: list[Series] = []
        self._tokens = self._read(text)
        self._at = 0

    def parse(self) -> list[Series]:
        self._expression(frozenset(), in_range=False)
        if self._at != len(self._tokens):
            self._fail()
        return self.series

    def _read(self, text: str) -> list[tuple[str, str]]:
        tokens, at = [], 0
        while at < len(text.rstrip()):
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                raise SyntaxError(f"{text[at:]!r} in {text!r}")
            tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()
        return tokens

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _take(self, *wanted: str) -> str:
        kind, token = self._peek()
        if wanted and kind not in wanted and token not in wanted:
            self._fail()
        self._at += 1
        return token

    def _fail(self) -> None:
        raise SyntaxError(f"{self._peek()} in {self.text!r}")

    def _expression(self, kept: frozenset[str], *, in_range: bool) -> None:
        self._operand(kept, in_range=in_range)
        while self._peek()[1] in OPERATORS:
            self._take()
            self._operand(kept, in_range=in_range)

    def _operand(self, kept: frozenset[str], *, in_range: bool) -> None:
        kind, token = self._peek()
        if token == "(":
            self._take()
            self._expression(kept, in_range=in_range)
            self._take(")")
        elif kind == "number":
            self._take()
        else:
            name = self._take("name")
            if name in AGGREGATIONS:
                self._aggregation(kept)
            elif name in FUNCTIONS:
                self._call(name, kept)
            else:
                self._selector(name, kept, in_range=in_range)

    def _aggregation(self, kept: frozenset[str]) -> None:
        if self._peek()[1] == "by":
            self._take()
            kept |= self._labels()
        self._take("(")
        self._expression(kept, in_range=False)
        self._take(")")

    def _labels(self) -> frozenset[str]:
        labels = set()
        self._take("(")
        while self._peek()[1] != ")":
            labels.add(self._take("name"))
            if self._peek()[1] == ",":
                self._take()
        self._take(")")
        return frozenset(labels)

    def _call(self, name: str, kept: frozenset[str]) -> None:
        self._take("(")
        self._expression(kept, in_range=name in OVER_RANGES)
        while self._peek()[1] == ",":
            self._take()
            self._expression(kept, in_range=False)
        self._take(")")

    def _selector(self, metric: str, kept: frozenset[str], *, in_range: bool) -> None:
        matched = set()
        if self._peek()[1] == "{":
            self._take()
            while self._peek()[1] != "}":
                matched.add(self._take("name"))
                self._take(*MATCHERS)
                self._take("string")
                if self._peek()[1] == ",":
                    self._take()
            self._take("}")
        has_range = self._peek()[0] == "range"
        if has_range:
            self._take()
        if has_range is not in_range:
            self._fail()
        self.series.append(Series(metric, kept | matched, has_range))

"""Money as integer minor units plus an ISO 4217 currency, and the parser of a channel's decimal text.

Python's parsers accept full-width digits, exponents, signs, underscores and white space; channels never write them, so
text is matched against a strict ASCII form first.
"""

from __future__ import annotations

import re

from core.errors import InvalidRequest

AMOUNT_MAX = 10**14
"""Largest amount in minor units: far above any payment, far below the exact range of int8 and IEEE doubles."""

CURRENCIES = frozenset(
    """AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF
    CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD
    HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD
    MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN
    PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY
    TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG""".split()
)
"""Codes of ISO 4217 that money has: no metals, units of account, funds and codes for tests."""

# ISO 4217 exponents that are not 2. https://www.iso.org/iso-4217-currency-codes.html
_ZERO = frozenset("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split())
_THREE = frozenset("BHD IQD JOD KWD LYD OMR TND".split())

_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,13})(?:\.([0-9]{1,3}))?", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


def exponent(currency: str) -> int:
    """Decimal places of a currency: CNY 2, JPY 0, KWD 3."""
    if currency in _ZERO:
        return 0
    return 3 if currency in _THREE else 2


def is_currency(text: str) -> bool:
    """Whether the text has the form of an ISO 4217 code: three upper-case ASCII letters."""
    return _CURRENCY.fullmatch(text) is not None


def minor_units(text: str, currency: str) -> int:
    """Minor units of a channel's decimal text: ("0.01", "CNY") → 1, ("100", "JPY") → 100.

    Raises:
        InvalidRequest: not plain ASCII decimal, or more places than the currency has.
    """
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise InvalidRequest("an amount is plain decimal digits")
    places = exponent(currency)
    whole, fraction = match[1], match[2] or ""
    if len(fraction) > places:
        from core.sentences import Sentence  # noqa: PLC0415 - which writes amounts

        raise InvalidRequest(Sentence("{currency} has {places} decimal places", currency=currency, places=places))
    return int(whole + fraction.ljust(places, "0"))


def decimal_text(amount: int, currency: str) -> str:
    """The inverse of `minor_units`, with all places: (1, "CNY") → "0.01"."""
    places = exponent(currency)
    if places == 0:
        return str(amount)
    whole, fraction = divmod(amount, 10**places)
    return f"{whole}.{fraction:0{places}d}"

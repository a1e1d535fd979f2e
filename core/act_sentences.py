"""Sentences about acts, in English, by key. Figures are in braces. The console has the same keys in other languages."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SENTENCES: Mapping[str, str] = MappingProxyType(
    {
        # -- any order
        "order.stays": "The order stays {status}.",
        "order.is_notified": "The merchant's order service is notified.",
        "order.not_notified": "The order has no notify_url, so nobody is notified.",
        # -- refunds
        "refund.gives_back": "{amount} of payment {out_trade_no} go back to the buyer, by refund {refund_no} at"
        " {account}.",
        "refund.leaves": "{left} of {whole} are left then.",
        "refund.is_notified": "The merchant is notified (order.refunded) once the channel has done it.",
        "refund.waits": "It waits for a second operator, for {hours} hours: alone an operator gives back {limit} of"
        " an order.",
        "refund.known": "Refund {refund_no} has this key already and is {status}: nothing more happens.",
        "refund.pays_order": "This money has paid the order. What becomes of the goods is the merchant's to decide.",
        "refund.on_its_way": "{amount} of this payment are on their way back already.",
        "refund.went_outside": "{amount} of this payment went back at the channel, without nodrop.",
        "refund.has_inquiry": "The buyer has asked the channel about this payment; an inquiry is open.",
        "refund.same_amount": "Refund {refund_no} of this payment has the same amount.",
        "refund.other_terms": "Refund {refund_no} has this key, and another payment or amount: take another key.",
        "refund.no_payment": "The order has no such payment.",
        "refund.watched": "The payment is only watched: the system that made it gives its money back.",
        "refund.not_paid": "The payment is not paid.",
        "refund.order_open": "The order is neither paid nor closed yet.",
        "refund.unconfirmed": "Only a callback has paid the payment: a query has to confirm it first.",
        "refund.disputed": "The money is disputed: the buyer would get it twice.",
        "refund.unknown_sum": "Something went back at the channel, and nobody knows how much is left: query the"
        " order first.",
        "refund.nothing_left": "Nothing of the payment is left: all of it has gone back or is on its way.",
        "refund.too_much": "So much is not left: {left} can still go back.",
        "refund.too_many": "A payment has at most {limit} refunds.",
        "refund.no_account": "The account {account} is not there or does not open, so its channel cannot be asked.",
        "refund.other_world": "The account {account} has changed between test and real money since the payment was"
        " made, so its channel does not know the payment.",
        "refund.wrong_amount": "The channel takes no such amount: {detail}.",
        "refund.was_declined": "{by} has declined the refund with this key: take another key to ask again.",
        "refund.has_expired": "Nobody approved the refund with this key in time: take another key to ask again.",
        # -- approvals
        "approval.needs_person": "Above the limit nodrop has to know who asks and who agrees: by the console, by an"
        " operator's password on the command line, or by an API key of an operator.",
        "approval.own": "Somebody else has to decide: you have asked for this refund.",
        "approval.decided": "{by} has decided already: {decision}.",
        "approval.expired": "Nobody approved it in time: it has to be asked for again.",
        "approval.declines": "The refund is not made. {requested_by} has to ask again, with another key.",
        "approval.asked_by": "{requested_by} has asked for it: {reason}",
        # -- late money
        "accept.pays": "The order becomes paid by payment {out_trade_no}: {amount} at {account}.",
        "accept.is_notified": "The merchant is notified (order.paid, late).",
        "accept.leaves_others": "{count} other payments with money stay as double payments, a case each.",
        "accept.went_back": "{amount} of it have gone back or are on their way: {left} are left.",
        "accept.is_paid": "The order is paid already.",
        "accept.no_money": "No payment of the order has money that its channel has confirmed, that is there, and that"
        " is not on its way back.",
        # -- closing
        "close.asks": "Each of {count} open payments is queried, closed at its channel, and queried again.",
        "close.if_unpaid": "The order is closed only if the channels call all of them unpaid; otherwise the worker"
        " goes on.",
        "close.at_once": "The order has no open payment: it is closed at once.",
        "close.is_paid": "The order is paid.",
        "close.is_closed": "The order is closed already.",
        "close.may_pay": "The buyer may be paying at this moment.",
        # -- querying
        "query.asks": "{count} payments are queried at their channels now.",
        "query.commits": "What the channels say has its effect at once, as with any other query.",
        "query.nothing": "There is nothing to ask: the money of all payments is known.",
        # -- attaching
        "attach.says_paid": "{account} says of {number}: paid, {amount}, transaction {transaction}.",
        "attach.says_refunded": "{account} says of {number}: paid, {amount}, transaction {transaction}; {refunded}"
        " went back.",
        "attach.says_other": "{account} says of {number}: {evidence}.",
        "attach.as_ours": "The number is one of nodrop's: the payment becomes one of ours again, and can be refunded"
        " here.",
        "attach.as_watched": "Another system made the payment: it becomes a watched one, which nodrop never refunds.",
        "attach.pays": "The order becomes paid by it, after one more query.",
        "attach.comes_late": "The order is closed: it is late money, and the account's policy is {policy}.",
        "attach.comes_twice": "The order is paid already: it is a double payment, with a case.",
        "attach.has_payments": "The order has {count} other payments that are open.",
        "attach.no_money": "Only money that is there can be attached.",
        "attach.other_amount": "The order is about {wanted}, and this is {amount}.",
        "attach.other_account": "The money is of another merchant: {account}.",
        "attach.other_world": "The order and the account are of two worlds: test money and real money.",
        "attach.is_known": "This money is known here: it is of order {order_no}, payment {out_trade_no}.",
        "attach.is_known_beside": "This money is one of ours under another name of the account.",
        "attach.wrong_number": "At {channel} no payment has a number of this form.",
        "attach.no_answer": "The channel gave no clear answer ({reason}): try again.",
        # -- cases
        "case.is_resolved": "{by} has resolved this case: {resolution}",
        "case.notes": "The case is resolved with your reason. Nothing else changes.",
        "case.stays": "The case stays open until what the channel says settles it.",
        "case.ends_with_refund": "The case is resolved once the buyer has the money back.",
        "case.ends": "The case is resolved with that.",
        "case.no_choice": "This is no answer to a case of this kind.",
        "case.no_order": "The case names no order.",
        "case.no_payment": "The case names no payment.",
        # -- accounts
        "account.stops": "Buyers and the API start no more payments at {account}.",
        "account.goes_on": "Its {pending} open payments are queried until they are definite, its callbacks count,"
        " and its {refunds} refunds under way go on.",
        "account.starts": "Payments may be started at {account} again.",
        "account.is_last": "No other account is switched on: no order could be paid.",
        "account.is_off": "The account is switched off already.",
        "account.is_on": "The account is switched on already.",
        # -- the work on cases
        "case.assigns": "{assignee} has case {id} from now on.",
        "case.takes_from": "{assignee} has it now.",
        "case.gives_back": "Nobody has case {id} from now on: anybody may take it.",
        "case.assigned_to": "{assignee} has case {id}.",
        "case.given_back": "Case {id} was given back meanwhile: nobody has it.",
        "case.resolved_by": "{by} has resolved case {id}.",
        # -- erasing
        "erase.texts": "Subject, metadata, return address, checkouts, raw callbacks, the texts of notifications and"
        " what people wrote into the cases of order {order_no} are gone for ever.",
        "erase.keeps": "Amounts, numbers and the history stay.",
        "erase.gives_up": "Notifications that were never delivered are given up.",
        # -- operators
        "operator.is_added": "{name} becomes {role}, and signs in by a one-time password.",
        "operator.becomes": "{name} is {before} and becomes {role}.",
        "operator.is_disabled": "Nobody signs in as {name} any more.",
        "operator.is_enabled": "{name} signs in again, by the password of before.",
        "operator.is_reset": "{name} gets a one-time password, signs in without codes, and is enabled.",
        "operator.loses": "{sessions} sessions end.",
        "operator.loses_keys": "{keys} API keys of {name} open nothing any more.",
        "operator.exists": "There is an operator {name} already.",
        "operator.has_role": "{name} is {role} already.",
        "operator.is_off": "{name} is disabled already.",
        "operator.is_on": "{name} is not disabled.",
        # -- alerts
        "alert.is_sent": "A worker sends a test to {host}.",
        "alert.no_url": "ALERT_URL is not set: nothing can be sent.",
        # -- the sign-off of a day
        "sign_off.figures": "The figures of {day} at {account} are signed as they are now:",
        "sign_off.no_money": "It is signed that there was no money on {day} at {account}.",
        "sign_off.currency": "Paid {paid}, refunded {refunded}, net {net}.",
        "sign_off.not_over": "{day} is not over in the calendar of {account}'s channel.",
        "sign_off.not_read": "The statement of this day was not read as a whole.",
        "sign_off.differences_open": "{count} differences are open.",
        # -- notifications
        "resend.one": "The notification {type} of order {order_no} is sent to {endpoint} at once, with the id and the"
        " text that it always had.",
        "resend.attempts": "It is tried from its first attempt on.",
        "resend.delivered": "It was acknowledged before, so its receiver drops it by its id.",
        "resend.superseded": "A newer notification took its place, so its receiver drops it as outdated.",
        "resend.paused": "Its endpoint is paused: it is sent once that is resumed.",
        "resend.erased": "Its text was erased: there is nothing left to send.",
        "resend.under_way": "It is being sent at this moment.",
        "resend.many": "{count} notifications are sent again, {per_s} a second: that takes {span}.",
        "resend.many_more": "More than {count} notifications are sent again, {per_s} a second: that takes more than"
        " {span}.",
        "resend.times": "The oldest was made at {oldest}, the newest at {newest}.",
        "resend.endpoint": "{count} are for {endpoint}.",
        "resend.other_endpoints": "The others are for {count} more endpoints.",
        "resend.endpoint_paused": "{endpoint} is paused: those for it are sent once it is resumed.",
        "resend.none": "There is none to send again.",
        # -- endpoints
        "endpoint.pause": "Nothing is sent to {endpoint} from now on. What is under way ends.",
        "endpoint.keeps": "{count} undelivered notifications, and new ones, wait: they use no attempt and are not given"
        " up.",
        "endpoint.unknown": "Nothing is undelivered there now: look whether the address is right.",
        "endpoint.is_paused": "It is paused already, by {by}.",
        "endpoint.is_resumed": "It was resumed meanwhile.",
        "endpoint.resume": "Notifications are sent to {endpoint} again.",
        "endpoint.lets_go": "{count} have waited, and are sent {per_s} a second, the oldest first: that takes {span}.",
        "endpoint.not_paused": "It is not paused.",
    }
)

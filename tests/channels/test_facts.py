"""What is most often done wrong with these channels, and which tests fail when an adapter does it."""

from importlib import import_module

import pytest

FACTS = {
    "signatures are over raw bytes, not over JSON parsed and written again": (
        "test_callbacks:test_the_raw_bytes_are_verified_and_not_what_they_mean",
        "alipay.test_adapter:test_an_answer_is_verified_over_the_raw_bytes_of_its_node",
        "wechatpay.test_adapter:test_a_callback_with_escaped_slashes_and_spaces_verifies_over_its_raw_bytes",
        "paypal.test_adapter:test_the_event_is_verified_as_it_came_and_not_as_it_would_be_written",
    ),
    "Alipay's sign_type is signed in requests and not in callbacks": (
        "alipay.test_adapter:test_requests_are_signed_with_sign_type_and_callbacks_without_it",
    ),
    "a form is decoded once": ("alipay.test_adapter:test_values_of_a_callback_are_decoded_once",),
    "TRADE_FINISHED and REFUND were paid": (
        "alipay.test_adapter:test_finished_is_paid",
        "wechatpay.test_adapter:test_a_refund_was_paid",
    ),
    "TRADE_CLOSED may have been paid": (
        "alipay.test_adapter:test_closed_after_a_refund_of_the_whole_was_paid",
        "alipay.test_adapter:test_closed_without_a_payment_is_closed",
    ),
    "TRADE_NOT_EXIST is no failure": (
        "alipay.test_adapter:test_a_trade_before_the_code_is_scanned_is_missing_and_may_be_paid_still",
        "test_queries:test_a_payment_that_is_not_there_is_missing_and_that_is_not_a_failure",
    ),
    "checkout.session.completed is not paid": (
        "stripe.test_adapter:test_a_completed_session_is_not_paid_before_its_payment_status_says_so",
    ),
    "a declined PaymentIntent is not over": ("stripe.test_adapter:test_a_decline_is_no_end_of_the_payment",),
    "what counts is the order's total, not what the payer paid": (
        "wechatpay.test_adapter:test_the_amount_of_the_order_counts_and_not_what_the_payer_paid_after_a_coupon",
        "alipay.test_adapter:test_what_the_buyer_really_paid_is_not_compared",
    ),
    "Stripe's webhook secret is used as it is shown": (
        "stripe.test_adapter:test_the_webhook_secret_is_used_as_it_is_shown",
    ),
    "any v1 may match, and v0 never": ("stripe.test_adapter:test_any_v1_of_several_verifies_and_v0_never",),
    "an empty body has its line, and the last line its end": (
        "wechatpay.test_adapter:test_five_lines_are_signed_also_when_the_body_is_empty",
        "wechatpay.test_adapter:test_the_empty_answer_to_a_close_must_verify_with_its_empty_line",
    ),
    "a SIGNTEST probe fails as any other wrong signature": (
        "wechatpay.test_adapter:test_a_probe_with_a_wrong_signature_fails_as_any_other",
    ),
    "an unsigned error is neither refused for that nor trusted": (
        "wechatpay.test_adapter:test_a_404_that_says_so_is_missing_although_no_error_is_signed",
        "wechatpay.test_adapter:test_an_unsigned_error_is_never_money_and_never_an_end",
    ),
    "an APIv3 key has 32 bytes": ("wechatpay.test_adapter:test_an_apiv3_key_of_another_length_opens_no_account",),
    "PayPal's checksum has no sign, and its certificate comes from PayPal": (
        "paypal.test_adapter:test_a_checksum_over_two_to_the_thirty_first_is_written_without_a_sign",
        "paypal.test_adapter:test_an_address_that_is_not_paypals_is_refused_before_anything_is_sent",
    ),
    "an acknowledgement is the channel's own, to the byte": (
        "test_callbacks:test_acknowledgement_is_the_channels_own_words_to_the_byte",
        "alipay.test_adapter:test_the_acknowledgement_is_seven_bytes",
    ),
    "WeChat's notify_url has no query string": (
        "wechatpay.test_adapter:test_a_callback_url_with_a_query_string_is_never_told",
    ),
    "amounts are integers of the currency's own minor unit": (
        "alipay.test_adapter:test_yuan_become_fen_exactly",
        "stripe.test_adapter:test_amounts_are_integers_in_stripes_own_minor_units",
        "paypal.test_adapter:test_an_amount_is_written_as_paypal_writes_this_currency",
        "wechatpay.test_adapter:test_an_amount_is_an_integer_of_fen_or_it_is_unreadable",
    ),
    "a job scheduled again is another job": (
        "tests.scenarios.test_reenqueue_within_own_job:test_an_unpaid_order_is_asked_about_at_growing_gaps",
        "tests.storage.redis.test_delay_queue:test_a_job_that_is_armed_already_is_left_alone",
    ),
}


@pytest.mark.parametrize("fact", FACTS)
def test_each_has_a_test_that_fails_without_it(fact: str) -> None:
    """A test that is renamed is renamed here."""
    for where in FACTS[fact]:
        name, _, test = where.partition(":")
        module = import_module(name if name.startswith("tests.") else f"tests.channels.{name}")
        assert hasattr(module, test)

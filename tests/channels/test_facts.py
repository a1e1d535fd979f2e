"""The most common mistakes with these channels, and the tests that fail when an adapter makes them."""

from importlib import import_module

import pytest

FACTS = {
    "signatures are over raw bytes, not over JSON parsed and written again": (
        "test_callbacks:test_a_reserialised_callback_is_forged",
        "alipay.test_adapter:test_a_response_is_verified_over_the_raw_bytes_of_its_node",
        "wechatpay.test_adapter:test_a_callback_with_escaped_slashes_and_spaces_verifies_over_its_raw_bytes",
        "paypal.test_adapter:test_a_reserialised_event_is_forged",
    ),
    "Alipay's sign_type is signed in requests and not in callbacks": (
        "alipay.test_adapter:test_requests_are_signed_with_sign_type_and_callbacks_without_it",
    ),
    "a form is decoded once": ("alipay.test_adapter:test_values_of_a_callback_are_decoded_once",),
    "TRADE_FINISHED and REFUND were paid": (
        "alipay.test_adapter:test_trade_finished_is_paid",
        "wechatpay.test_adapter:test_trade_state_refund_was_paid",
    ),
    "TRADE_CLOSED may have been paid": (
        "alipay.test_adapter:test_trade_closed_after_a_full_refund_was_paid_in_a_query",
        "alipay.test_adapter:test_trade_closed_without_a_payment_is_closed",
    ),
    "TRADE_NOT_EXIST is no failure": (
        "alipay.test_adapter:test_a_trade_before_the_code_is_scanned_is_missing_and_may_be_paid_still",
        "test_queries:test_a_payment_that_does_not_exist_is_missing_and_no_failure",
    ),
    "checkout.session.completed is not paid": (
        "stripe.test_adapter:test_a_completed_session_is_not_paid_before_its_payment_status_says_so",
    ),
    "a declined PaymentIntent is not over": ("stripe.test_adapter:test_a_decline_does_not_end_the_payment",),
    "what counts is the order's total, not what the payer paid": (
        "wechatpay.test_adapter:test_the_amount_of_the_order_counts_and_not_what_the_payer_paid_after_a_coupon",
        "alipay.test_adapter:test_the_amount_after_discounts_is_not_compared",
    ),
    "Stripe's webhook secret is used as it is shown": (
        "stripe.test_adapter:test_the_webhook_secret_is_used_with_its_prefix",
    ),
    "any v1 may match, and v0 never": ("stripe.test_adapter:test_any_v1_of_several_verifies_and_v0_never",),
    "an empty body has its line, and the last line its end": (
        "wechatpay.test_adapter:test_five_lines_are_signed_also_when_the_body_is_empty",
        "wechatpay.test_adapter:test_the_empty_response_to_a_close_must_verify_with_its_empty_line",
    ),
    "a SIGNTEST probe fails as any other wrong signature": (
        "wechatpay.test_adapter:test_a_probe_with_a_wrong_signature_fails_as_any_other",
    ),
    "an unsigned error is neither refused for that nor trusted": (
        "wechatpay.test_adapter:test_a_404_with_order_not_exist_is_missing_although_unsigned",
        "wechatpay.test_adapter:test_an_unsigned_error_is_neither_paid_nor_closed",
    ),
    "an APIv3 key has 32 bytes": ("wechatpay.test_adapter:test_an_apiv3_key_of_another_length_opens_no_account",),
    "PayPal's checksum has no sign, and its certificate comes from PayPal": (
        "paypal.test_adapter:test_a_checksum_above_2_to_the_31_is_unsigned",
        "paypal.test_adapter:test_an_address_that_is_not_paypals_is_refused_before_anything_is_sent",
    ),
    "an acknowledgement is the channel's own, to the byte": (
        "test_callbacks:test_the_acknowledgement_is_exact_to_the_byte",
        "alipay.test_adapter:test_the_acknowledgement_is_seven_bytes",
    ),
    "WeChat's notify_url has no query string": (
        "wechatpay.test_adapter:test_a_callback_url_with_a_query_string_is_refused",
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
def test_each_fact_names_tests_that_exist(fact: str) -> None:
    """Rename a test here too."""
    for where in FACTS[fact]:
        name, _, test = where.partition(":")
        module = import_module(name if name.startswith("tests.") else f"tests.channels.{name}")
        assert hasattr(module, test)

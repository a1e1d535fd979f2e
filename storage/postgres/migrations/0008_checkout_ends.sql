-- Ends of checkouts and of approvals: when a checkout stops working and whose it is, and what became of a capture.

ALTER TABLE payments
    ADD COLUMN checkout_ends_at     timestamptz,
    ADD COLUMN payer                jsonb,
    ADD COLUMN capture_requested_at timestamptz,
    ADD COLUMN capture_refused_at   timestamptz,
    ADD COLUMN given_up_at          timestamptz;
COMMENT ON COLUMN payments.checkout_ends_at IS 'from then on the checkout does not work; the payment itself may still be paid until payable_until';
COMMENT ON COLUMN payments.payer IS 'whom the checkout belongs to, for a repeated creation with identical terms; null once the payment is definite';
COMMENT ON COLUMN payments.capture_requested_at IS 'when the money of an approval was last requested';
COMMENT ON COLUMN payments.capture_refused_at IS 'when the channel definitely refused that request; null again after the next one';
COMMENT ON COLUMN payments.given_up_at IS 'another payment was started instead: from then on this one is never captured';

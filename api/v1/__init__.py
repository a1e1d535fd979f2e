"""The JSON API for the merchant's backend."""

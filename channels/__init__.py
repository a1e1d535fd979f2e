"""The payment channels. Nothing here knows storage.

`base` is the Protocol of a channel, `adapters` the list of them, `transport` the one HTTP client; `description` is the
form in which a channel describes its credentials, `credentials` the checks that work on any of them. Each channel is a
package: `alipay`, `paypal`, `sandbox`, `stripe`, `wechatpay`. `kit` has the tools that several of them use.
"""

"""The payment channels. Nothing here knows storage.

`base` is the Protocol of a channel and `adapters` the list of them. Each channel is a package: `alipay`, `paypal`,
`sandbox`, `stripe`, `wechatpay`. `kit` has the tools that several of them use.

`transport` is the one HTTP client: `carrier` keeps its connections, each an `http_connection`, through `egress_proxy`
where one is set, to servers that `authorities` vouch for. `hosts` checks that test money does not look like real money.
`description` is the form in which a channel describes its credentials, `credentials` the checks that work on any of
them. `statement_formats` guesses what a refused statement is.
"""

"""Simulated payment channels, merchant and shoppers, and the oracle that checks nodrop from outside.

Nothing here imports nodrop, and the product imports nothing here: signing, parsing and rules are written a second time,
so that a mistake in one shows in the other. Everything runs over real HTTP with real signatures and seeded faults.

kernel/     ledger, faults, callbacks and control API of all channels     kit/        HTTP server, client, keys
alipay/ paypal/ sandbox/ stripe/ wechatpay/     wire format of a channel, a package each
merchant/   the order service that receives notifications                 shoppers/   buyers and their browser
oracle/     the invariants     servers     channels and merchant, served  __main__    the commands
"""

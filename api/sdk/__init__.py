"""The part that shops embed: the module `order-status.js`, as it is published, and its page for developers."""

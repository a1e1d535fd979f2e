"""`nodrop orders`: the commands and how an order is printed."""

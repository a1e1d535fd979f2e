"""The example shop of `nodrop up`: a merchant's shop as a process of its own, and a user of the API as any other.

catalogue   products and ways to pay             books      sales, and the goods that were sent
backend     calls of the API and of the channels' control
pages       HTML, with `static/`                 handlers   the addresses of the shop
"""

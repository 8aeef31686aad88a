"""The shop: from an order placed to parcel and points, or to a cancellation that leaves nothing behind.

Six independent services; each has its own file, its own store and its own consumer group. Start with README.md.
"""

from services.shop import inventory, loyalty, notifications, orders, payments, shipping

services = [
    orders.orders,
    payments.payments,
    inventory.inventory,
    shipping.shipping,
    notifications.notifications,
    loyalty.loyalty,  # added last: this line and its own file are all it took
]

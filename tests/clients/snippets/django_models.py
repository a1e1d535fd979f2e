"""The shop's tables, as Django's models: shop/models.py of the documentation's view."""

from django.db import models


class Order(models.Model):  # noqa: DJ008 - nobody reads it
    order_no = models.CharField(max_length=64, primary_key=True)
    version = models.BigIntegerField(default=0)
    status = models.CharField(max_length=40)

    class Meta:
        db_table = "orders"


class Work(models.Model):  # noqa: DJ008 - nobody reads it
    order_no = models.CharField(max_length=64, primary_key=True)
    kind = models.CharField(max_length=20)

    class Meta:
        db_table = "work"

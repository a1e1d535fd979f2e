"""The address of the documentation's view: shop/urls.py."""

from django.urls import path
from shop.views import notifications

urlpatterns = [path("notifications", notifications)]

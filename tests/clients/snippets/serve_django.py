"""Serves the view of shop/views.py with Django's own models, over the standard library's WSGI server."""

import os
from wsgiref.simple_server import make_server

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"]}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["shop"],
    MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
    ROOT_URLCONF="shop.urls",
    SECRET_KEY="for tests",
)
django.setup()
with make_server("127.0.0.1", int(os.environ["PORT"]), get_wsgi_application()) as server:
    server.serve_forever()

# One image for every process; the command says which:
#
#   docker build --tag nodrop .
#   docker run … nodrop                              the web process, on PORT
#   docker run … --no-healthcheck nodrop python -m worker
#   docker run … --no-healthcheck nodrop python -m cli migrate
#
# Settings are variables only (docs/configuration.md); compose.yaml runs all of it with a Postgres and a Redis.

# The environment, from the lock: every package is checked against its hash, and none is compiled here.
FROM python:3.13-slim-bookworm AS environment
COPY requirements.txt /requirements.txt
RUN python -m venv /opt/nodrop && \
    /opt/nodrop/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-input \
    --only-binary=:all: --require-hashes --requirement /requirements.txt

FROM python:3.13-slim-bookworm
# Docker waits 10 s after the signal before it kills: what runs is finished before.
ENV PATH=/opt/nodrop/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PORT=8000 \
    SHUTDOWN_GRACE_S=8
COPY --from=environment /opt/nodrop /opt/nodrop
WORKDIR /app
COPY . .
RUN ["python", "-m", "compileall", "-q", "."]
# Nothing here belongs to this user, and nothing is written: the file system may be read-only.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Alive, not ready: a process must not be restarted because a store is down.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "scripts/container.py", "alive"]
CMD ["python", "-m", "api"]

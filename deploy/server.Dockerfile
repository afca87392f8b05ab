# Prefect's server. Build it from the checkout:
#   docker build -f deploy/server.Dockerfile -t csr-server:0.1.0 .
# Not `prefecthq/prefect:3-latest`: with SQLAlchemy 2.1 the scheduler of 3.7.7 never makes a
# scheduled run, and with the newest FastAPI the server does not start. The constraints hold both.
FROM python:3.11-slim-bookworm

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home prefect \
    && install --directory --owner prefect --group prefect /data

COPY deploy/setup/constraints-cpu.txt /tmp/constraints.txt
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt \
    "prefect==3.7.7" "sqlalchemy>=2.0,<2.1" asyncpg

# By number: Kubernetes cannot tell whether a name is root.
USER 10001
# Leases of concurrency slots lie below /data: in memory, a restart of the server would end runs.
ENV PREFECT_HOME=/data/prefect \
    PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect.server.concurrency.lease_storage.filesystem \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT=false \
    DO_NOT_TRACK=1
VOLUME /data

HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["python", "-c", \
    "import urllib.request as r; r.urlopen('http://127.0.0.1:4200/api/health', timeout=4)"]
ENTRYPOINT ["tini", "--"]
# All interfaces of the container; who may reach them is said where its port is published.
CMD ["prefect", "server", "start", "--host", "0.0.0.0"]

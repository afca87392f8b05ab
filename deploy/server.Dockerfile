# Prefect's server with the database driver that fits. Not `prefecthq/prefect:3-latest`: with
# SQLAlchemy 2.1 the scheduler of 3.7.7 never makes a scheduled run.
FROM python:3.11-slim-bookworm

RUN pip install --no-cache-dir "prefect==3.7.7" "sqlalchemy>=2.0,<2.1" "asyncpg>=0.29"

RUN useradd --uid 10001 --create-home prefect && mkdir -p /data && chown prefect:prefect /data
USER prefect
# Leases of concurrency slots lie here: in memory, a restart of the server would end runs.
ENV PREFECT_HOME=/data/prefect \
    PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect.server.concurrency.lease_storage.filesystem \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT=false \
    DO_NOT_TRACK=1
VOLUME /data

HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["python", "-c", \
    "import urllib.request as r; r.urlopen('http://127.0.0.1:4200/api/health', timeout=4)"]
ENTRYPOINT ["prefect"]
CMD ["server", "start", "--host", "0.0.0.0"]

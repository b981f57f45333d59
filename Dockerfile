# Pin the base for good with --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /app
# The exact, hash-locked packages first: this layer is built again only when the lock changes.
COPY requirements.txt ./
RUN python -m venv /app/.venv \
 && /app/.venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt \
 && /app/.venv/bin/python -m pip uninstall --yes --quiet pip setuptools
COPY gateway ./gateway
RUN /app/.venv/bin/python -m compileall -q gateway

FROM ${PYTHON_IMAGE} AS runtime
LABEL org.opencontainers.image.title="chat-gateway" \
      org.opencontainers.image.description="A self-hosted chat gateway for WeChat and DingTalk" \
      org.opencontainers.image.licenses="MIT"
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY --from=build /app /app
# Messages, sessions and sign-ins live in /app/data, the only place the gateway writes to.
RUN mkdir /app/data && chown 10001:10001 /app/data
COPY docs ./docs
COPY config.example.json README.md README.zh-CN.md ./
USER 10001:10001
VOLUME /app/data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 CMD ["python", "-m", "gateway", "healthcheck"]
CMD ["python", "-m", "gateway", "run"]

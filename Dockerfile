# The sidecar (default target `extproc`) and the demo provider (target `demo`).
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/extproc
# Dependencies first: they change less often than the code. Every wheel is checked by its hash.
COPY requirements/run.txt requirements/dev.txt requirements/
RUN sed -n '/^setuptools==/,/# via/p' requirements/dev.txt > requirements/build.txt \
 && /opt/extproc/bin/pip install --require-hashes -r requirements/run.txt \
 && /opt/extproc/bin/pip install --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY extproc extproc
RUN /opt/extproc/bin/pip install --no-deps --no-build-isolation .
# The tokenizer vocabularies are part of the image: serving never touches the network for them.
RUN /opt/extproc/bin/extproc vocab /opt/vocab

FROM python:3.11.14-slim-bookworm AS base
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin extproc \
 && install --directory --owner=10001 --group=10001 /var/lib/extproc
COPY --from=build /opt/extproc /opt/extproc
COPY --from=build /opt/vocab /opt/vocab
ENV PATH=/opt/extproc/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    EXTPROC_VOCAB=/opt/vocab
USER 10001

FROM base AS demo
WORKDIR /opt/demo
COPY demo demo
EXPOSE 10100
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s \
  CMD ["python", "-c", "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 10100, timeout=2); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "demo.provider"]
CMD ["--host", "0.0.0.0", "--port", "10100"]

FROM base AS extproc
# gRPC must be reachable from Envoy's container; the admin port stays on loopback until a token is set.
ENV EXTPROC_POLICIES=/etc/extproc/policies \
    EXTPROC_GRPC=0.0.0.0:50051
EXPOSE 50051 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s \
  CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('EXTPROC_ADMIN_PORT', '8080')), timeout=2); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["extproc"]
CMD ["serve"]

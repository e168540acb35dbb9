# The exporter; with `--target tracer` the tracer, and with `--target demo` the load and the receiver of alerts of
# docker-compose.yml. All of them are of one environment, which is built once.
FROM python:3.14-slim-trixie AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY eventq eventq
COPY exporters exporters
RUN python -m venv /opt/eventq && \
    /opt/eventq/bin/pip install --no-cache-dir --disable-pip-version-check '.[cli,opentelemetry,prometheus,uvloop]'

FROM python:3.14-slim-trixie AS runtime
COPY --from=build /opt/eventq /opt/eventq
ENV PATH=/opt/eventq/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --system --no-create-home eventq
USER eventq

FROM runtime AS exporter
EXPOSE 10650
CMD ["eventq", "exporter", "--listen", ":10650"]

FROM runtime AS tracer
CMD ["eventq", "tracer"]

FROM runtime AS demo
WORKDIR /demo
COPY tools/observe tools/observe

# What is built unless a target is named.
FROM exporter

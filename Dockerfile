# The exporter, and with `--target demo` the load and the receiver of alerts of docker-compose.yml as well.
FROM python:3.14-slim-trixie AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY eventq eventq
COPY exporters exporters
RUN python -m venv /opt/eventq && /opt/eventq/bin/pip install --no-cache-dir --disable-pip-version-check '.[cli,prometheus,uvloop]'

FROM python:3.14-slim-trixie AS exporter
COPY --from=build /opt/eventq /opt/eventq
ENV PATH=/opt/eventq/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --system --no-create-home eventq
USER eventq
EXPOSE 10650
CMD ["eventq", "exporter", "--listen", ":10650"]

FROM exporter AS demo
WORKDIR /demo
COPY tools/observe tools/observe

# What is built unless a target is named.
FROM exporter

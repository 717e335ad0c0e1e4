# The gateway, and with EXTRA=job the image of offline jobs. From the repository's root:
#   docker build -f deploy/images/gateway.Dockerfile -t diptych/gateway:0.1.0 .
#   docker build -f deploy/images/gateway.Dockerfile -t diptych/job:0.1.0 --build-arg EXTRA=job --build-arg DRIVERS=s3fs .
# `python deploy/images/prove.py` runs these very steps without an engine.

# The digest is the one that public repositories pin for this tag.
FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d AS base

FROM base AS build
ARG EXTRA=gateway
# Of fsspec, for sources in object stores: s3fs, gcsfs, adlfs. Not pinned by us.
ARG DRIVERS=""
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python3 -m venv /opt/diptych
COPY constraints.txt pyproject.toml ./
COPY deploy/images/requirements.py deploy/images/requirements.py
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN python3 deploy/images/requirements.py "${EXTRA}" < pyproject.toml > /opt/diptych/requirements.txt \
    && printf '%s\n' ${DRIVERS} >> /opt/diptych/requirements.txt \
    && /opt/diptych/bin/pip install -r /opt/diptych/requirements.txt
COPY README.md LICENSE NOTICE ./
COPY export export
COPY service service
# Without what reports to OpenVINO's makers (it falls back to a stub), and without pip: nothing is
# installed where it runs.
RUN /opt/diptych/bin/pip install --no-deps . \
    && /opt/diptych/bin/pip check \
    && /opt/diptych/bin/pip uninstall --yes openvino-telemetry pip setuptools

FROM base
LABEL org.opencontainers.image.title="diptych" \
      org.opencontainers.image.description="CLIP-style dual encoders over gRPC" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/diptych /opt/diptych
# The demonstration model, 5 MB, for the overlay dev; others are mounted.
COPY model_repository /opt/diptych/share/model_repository
ENV PATH=/opt/diptych/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 10001:10001
EXPOSE 50051 50052 9090
# No HEALTHCHECK: Kubernetes heeds none and asks by gRPC, on --health-port.
ENTRYPOINT ["diptych"]
CMD ["serve", "--repository", "/opt/diptych/share/model_repository"]

# What exports and trains (target export, the default), and what makes TensorRT plans (target plan). From
# the repository's root:
#   docker build -f deploy/images/export.Dockerfile -t diptych/export:0.1.0 .
#   docker build -f deploy/images/export.Dockerfile -t diptych/plan:0.1.0 --target plan .

FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d AS base

FROM base AS build
# PyTorch for CPUs is on an index of its own; without it the image grows by CUDA's gigabytes.
ARG TORCH_INDEX=""
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python3 -m venv /opt/diptych
COPY constraints.txt pyproject.toml ./
COPY deploy/images/requirements.py deploy/images/requirements.py
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN /opt/diptych/bin/pip install ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} torch==2.13.0
RUN python3 deploy/images/requirements.py export < pyproject.toml > /opt/diptych/requirements.txt \
    && /opt/diptych/bin/pip install -r /opt/diptych/requirements.txt
COPY README.md LICENSE NOTICE ./
COPY export export
COPY service service
RUN /opt/diptych/bin/pip install --no-deps . \
    && /opt/diptych/bin/pip check \
    && /opt/diptych/bin/pip uninstall --yes openvino-telemetry pip setuptools

# Of the same release as Triton's image: a plan works for no other TensorRT. No digest: we could not
# resolve it; pin the one your registry gives.
FROM nvcr.io/nvidia/tensorrt:26.09-py3 AS plan
LABEL org.opencontainers.image.title="diptych-plan" \
      org.opencontainers.image.description="Makes TensorRT plans of a Diptych model repository" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE NOTICE ./
COPY export export
COPY service service
# Beside the image's own packages, of which TensorRT's module is one.
RUN python3 -m venv --system-site-packages /opt/diptych \
    && /opt/diptych/bin/pip install '.[plan]'
ENV PATH=/opt/diptych/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 10001:10001
ENTRYPOINT ["diptych-export"]

FROM base AS export
LABEL org.opencontainers.image.title="diptych-export" \
      org.opencontainers.image.description="Trains, imports and exports dual encoders for Diptych" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/diptych /opt/diptych
ENV PATH=/opt/diptych/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 10001:10001
ENTRYPOINT ["diptych-export"]

# Triton 2.73 with what the target `python` needs; onnxruntime and tensorrt need nothing more. From the
# repository's root:
#   docker build -f deploy/images/triton.Dockerfile -t diptych/triton:0.1.0 .

# No digest: we could not resolve it; pin the one your registry gives.
FROM nvcr.io/nvidia/tritonserver:26.09-py3 AS base

FROM base AS requirements
WORKDIR /build
COPY constraints-triton.txt ./
# The server itself is the image's.
RUN sed '/^nvidia-pytriton/d' constraints-triton.txt > requirements.txt

FROM base
LABEL org.opencontainers.image.title="diptych-triton" \
      org.opencontainers.image.description="Triton Inference Server for a Diptych model repository" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=requirements /build/requirements.txt /opt/diptych/requirements.txt
# Where the Python backend's stub looks; it heeds no PYTHONPATH. None of their dependencies is imported.
RUN python3 -m pip install --no-cache-dir --no-deps --break-system-packages -r /opt/diptych/requirements.txt
COPY deploy/images/triton-parts /opt/diptych
ENV PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
USER 10001:10001
EXPOSE 8001 8002
ENTRYPOINT ["/opt/diptych/serve"]
CMD ["--model-repository=/models"]

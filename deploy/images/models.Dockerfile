# A model repository as an image, for components/models-image; with the repository as the context:
#   docker build -f deploy/images/models.Dockerfile -t diptych/models:shapes-1 model_repository
FROM scratch
LABEL org.opencontainers.image.title="diptych-models" \
      org.opencontainers.image.description="A model repository"
COPY . /
USER 10001:10001

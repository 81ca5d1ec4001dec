# Two stages: what installs stays behind. The lock has hashes, so the image is what was tested.
FROM python:3.13.9-slim-trixie AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* && python -m venv /opt/weir
WORKDIR /src
COPY requirements.lock .
RUN /opt/weir/bin/pip install --require-hashes -r requirements.lock
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY app app
RUN /opt/weir/bin/pip install --no-deps .

FROM python:3.13.9-slim-trixie
RUN useradd --uid 10001 --create-home weir && install -d -o weir -g weir /var/spool/weir
COPY --from=build /opt/weir /opt/weir
ENV PATH=/opt/weir/bin:$PATH PYTHONUNBUFFERED=1 \
    WEIR_HOST=0.0.0.0 WEIR_PORT=8080 WEIR_SPOOL_DIR=/var/spool/weir WEIR_LOG_FORMAT=json
USER weir
VOLUME /var/spool/weir
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["weir"]
CMD ["serve"]

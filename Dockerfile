# One image, two programs: ld-master and ld-worker; no shell, nothing else.
#
#   docker build -t loaddensity .                       compiles in a builder with Rust
#   .ci/release && docker build --target prebuilt .     takes dist/, what .ci/release built; needs no registry
#
# BASE=scratch by default; any other base works too (debian:bookworm-slim to look around in).
# Understood by the classic builder, which makes every stage down to the wanted one: so the one that needs a
# registry comes last.
ARG BASE=scratch
ARG BUILDER=rust:1.95-bookworm

FROM ${BASE} AS runtime
LABEL org.opencontainers.image.title="LoadDensity" \
      org.opencontainers.image.description="Distributed load tests: ld-master and ld-worker" \
      org.opencontainers.image.source="https://github.com/Integration-Automation/LoadDensity" \
      org.opencontainers.image.licenses="MIT"
# Health is asked inside of the container only; serve it to others with --web 0.0.0.0:8089 and a token.
ENV PATH=/usr/local/bin:/usr/bin:/bin \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    LD_MASTER_WEB=127.0.0.1:8089 \
    LD_WORKER_WEB=127.0.0.1:8089
USER 65532:65532
# workers join at 5557; API, metrics and health are at 8089
EXPOSE 5557 8089
STOPSIGNAL SIGTERM
# either program answers, whichever of the two runs here
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s --retries=6 CMD ["ld-worker", "healthcheck"]
CMD ["ld-master"]

FROM runtime AS prebuilt
ARG DIST=dist
COPY ${DIST}/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --chown=65532:65532 ${DIST}/data /data
COPY ${DIST}/ld-master ${DIST}/ld-worker /usr/local/bin/

FROM ${BUILDER} AS build
WORKDIR /src
COPY . .
# what --version says of the commit: --build-arg COMMIT=$(git rev-parse --short HEAD)
ARG COMMIT=
# the explicit target keeps build scripts and macros from being linked statically
RUN target=$(rustc -vV | sed -n 's/^host: //p') \
    && LD_COMMIT="${COMMIT}" CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 RUSTFLAGS='-C target-feature=+crt-static' \
       cargo build --locked --release --target "$target" -p ld-master -p ld-worker --bins \
    && mkdir -p /out/data && cp "target/$target/release/ld-master" "target/$target/release/ld-worker" /out/

FROM runtime
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build /out/ld-master /out/ld-worker /usr/local/bin/

# docker build -t github-trigger .
# docker build --target sbom --output . .       writes github-trigger.cdx.json: what the program is made of (CycloneDX)
#
# CONTRIBUTING.md has the arguments of a release, and how two builds give the same digest.
#
# The builder needs Rust (rust-toolchain.toml says which) and a C compiler for ring; any image that has them will do.
ARG BUILDER=rust:1.95-bookworm

FROM ${BUILDER} AS build
WORKDIR /src
# Static, so that the image needs nothing but the program. An explicit target keeps the flag off build scripts.
ENV RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols"

# The dependencies alone: a layer that is built again only when they change.
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
RUN mkdir -p src benches tests/campaign && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs benches/main.rs tests/campaign/main.rs \
    && target="$(rustc -vV | sed -n 's/^host: //p')" \
    && cargo build --release --locked --bin github-trigger --target "$target" \
    && rm -r src "target/$target/release/github-trigger"

COPY src src
COPY config/base/deployer-trigger.yaml config/base/deployer-trigger.yaml
# Cargo goes by times, and those of the copy may be older than the build above.
RUN find src -exec touch {} + \
    && target="$(rustc -vV | sed -n 's/^host: //p')" \
    && cargo build --release --locked --bin github-trigger --target "$target" \
    && cp "target/$target/release/github-trigger" /github-trigger

# What is in it, from the same lock file: the dependencies of this one program on this one platform.
FROM build AS bill
RUN cargo install cargo-cyclonedx --locked --version 0.5.9
# No serial number and no time of day: the same source gives the same bill.
ENV SOURCE_DATE_EPOCH=0
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
    && cargo cyclonedx --format json --spec-version 1.5 --no-build-deps --target "$target" \
       --override-filename github-trigger.cdx \
    && cp github-trigger.cdx.json /

FROM scratch AS sbom
COPY --from=bill /github-trigger.cdx.json /

FROM scratch
ARG SOURCE=""
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.title="github-trigger" \
      org.opencontainers.image.description="Turns merged GitHub pull requests into Tekton PipelineRuns" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /github-trigger /github-trigger
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/github-trigger"]

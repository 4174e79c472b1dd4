# docker build -t github-trigger .
#
# The builder needs Rust (rust-toolchain.toml says which) and a C compiler for ring; any image that has them will do.
ARG BUILDER=rust:1.95-bookworm

FROM ${BUILDER} AS build
WORKDIR /src
# Static, so that the image needs nothing but the program. An explicit target keeps the flag off build scripts.
ENV RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols"

# The dependencies alone: a layer that is built again only when they change.
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
RUN mkdir -p src benches && echo 'fn main() {}' > src/main.rs && touch src/lib.rs benches/main.rs \
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

FROM scratch
LABEL org.opencontainers.image.title="github-trigger" \
      org.opencontainers.image.description="Turns merged GitHub pull requests into Tekton PipelineRuns" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /github-trigger /github-trigger
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/github-trigger"]

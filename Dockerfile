# The image: one executable on glibc and nothing else. docker build -t gokv . ; compose.yaml shows how to run it.

FROM oven/bun:1.4.5 AS build
WORKDIR /src
# What changes seldom comes first: new sources alone do not install the packages again.
COPY package.json bun.lock bunfig.toml ./
RUN bun install --frozen-lockfile --production
COPY tsconfig.json ./
COPY scripts/build.ts ./scripts/
COPY src ./src
RUN bun scripts/build.ts /out/bin && mkdir /out/volume && mkdir -m 0700 /out/volume/data

# A compiled Bun executable is linked against glibc, so distroless/static would not run it; it needs no OpenSSL.
FROM gcr.io/distroless/base-nossl-debian12:nonroot
# The folder, not the names in it: jwt-gen is a link, and copied by its name it would be 115 MB once more.
COPY --from=build /out/bin/ /
# A new volume takes over owner and mode of /data. The folder around it is copied, since builders create the target of a
# COPY with mode 0755 whatever its source has.
COPY --from=build --chown=65532:65532 /out/volume/ /
# How many outgoing requests run at once is read before the program starts, so it cannot be set from inside.
ENV DB_PATH=/data BUN_CONFIG_MAX_HTTP_REQUESTS=4096
EXPOSE 8080
VOLUME /data
USER 65532:65532
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/gokv", "healthcheck"]
ENTRYPOINT ["/gokv"]

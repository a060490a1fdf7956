# Two images. `service` holds all nine services and the programs of dapr/ (compose.yaml, helm/): the argument SERVICE says which
# service it runs unless told otherwise. `sidecar`, for compose.yaml, is Dapr's own image with our components in it.
#
#   docker build --target service --build-arg SERVICE=order -t order:0.1.0 .
#   docker run -e SERVICE=payment order:0.1.0
#
# Packages come before sources, so that a changed source installs nothing. No package needs a script to be installed.
FROM docker.io/library/node:22.20.0-bookworm-slim AS packages
WORKDIR /app
COPY package.json package-lock.json ./
# Without what only a compiler or a debugger reads: that is almost half of it.
RUN --mount=type=cache,target=/root/.npm \
  npm ci --omit=dev --ignore-scripts --no-audit --no-fund && \
  find node_modules -type f \( -name '*.ts' -o -name '*.mts' -o -name '*.cts' -o -name '*.map' \) -delete

FROM docker.io/library/node:22.20.0-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN --mount=type=cache,target=/root/.npm npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json ./
COPY kit kit
COPY services services
COPY dapr dapr
RUN node node_modules/typescript/bin/tsc -p . --sourceMap false --incremental false
COPY components components
RUN node dapr/compose/render.mjs polyglot /dapr && mkdir /data

FROM docker.io/library/node:22.20.0-bookworm-slim AS service
LABEL org.opencontainers.image.title="jangteo-service" \
  org.opencontainers.image.description="The services of jangteo, a marketplace backend on Dapr sidecars" \
  org.opencontainers.image.licenses="Apache-2.0"
ENV NODE_ENV=production
WORKDIR /app
COPY --from=packages /app/package.json ./
COPY --from=packages /app/node_modules node_modules
COPY shops shops
COPY --from=build /app/dist dist
ARG SERVICE=gateway
RUN test -e "dist/services/$SERVICE/src/main.js" || { echo "There is no service \"$SERVICE\"" >&2; exit 1; }
ENV SERVICE=$SERVICE
# Node's user, as a number: Kubernetes can't tell by a name that it isn't root. All files are root's, so it changes none.
USER 1000:1000
# exec: signals are for the service, not for a shell in front of it.
CMD ["sh", "-c", "exec node \"dist/services/$SERVICE/src/main.js\""]

FROM docker.io/library/busybox:1.37.0-musl AS busybox

FROM docker.io/daprio/daprd:1.18.2 AS sidecar
# For the health check: the official image holds daprd and nothing else.
COPY --from=busybox /bin/busybox /bin/busybox
COPY --from=build /dapr /dapr
# Where components with a relative path write.
COPY --from=build --chown=65532:65532 /data /data
WORKDIR /data

# Two images for compose.yaml: `service`, which holds all nine services (the command says which), and `sidecar`, Dapr's own
# image with our components in it.
FROM docker.io/library/node:22.20.0-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY tsconfig.json ./
COPY kit kit
COPY services services
RUN node node_modules/typescript/bin/tsc -p . && npm prune --omit=dev --no-audit --no-fund
COPY dapr dapr
COPY components components
RUN node dapr/compose/render.mjs polyglot /dapr && mkdir /data

FROM docker.io/library/node:22.20.0-bookworm-slim AS service
ENV NODE_ENV=production
WORKDIR /app
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/dist dist
COPY shops shops
USER node

FROM docker.io/library/busybox:1.37.0-musl AS busybox

FROM docker.io/daprio/daprd:1.18.2 AS sidecar
# For the health check: the official image holds daprd and nothing else.
COPY --from=busybox /bin/busybox /bin/busybox
COPY --from=build /dapr /dapr
# Where components with a relative path write.
COPY --from=build --chown=65532:65532 /data /data
WORKDIR /data

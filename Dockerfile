# The image of spegel-ts. docs/image.md says what is in it and why; `npm run image` builds it without Docker.

# What is built on and what it runs on: a distribution with sh, Node 24 and npm, and one with glibc and libstdc++.
# Tags are what can be known here; a release builds with the digests that they stand for on that day (release.yml).
ARG BUILD_IMAGE=docker.io/library/node:24-trixie-slim
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian13

# The program, the same for all platforms.
FROM --platform=$BUILDPLATFORM ${BUILD_IMAGE} AS program
WORKDIR /program
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY LICENSE build.ts tsconfig.json ./
COPY src src
ARG COMMIT=unknown
RUN node build.ts && cp LICENSE dist

# Node for the platform that it will run on: the package that package-lock.json names, with its hash, and that the
# tests ran on. npm picks it by its platform, so nothing of another platform has to run here.
FROM --platform=$BUILDPLATFORM ${BUILD_IMAGE} AS node
# What is bundled into the program is installed here, and thus listed in the SBOM.
ARG BUILDKIT_SBOM_SCAN_STAGE=true
WORKDIR /node
COPY package.json package-lock.json .npmrc ./
ARG TARGETARCH
RUN cpu=$(echo "$TARGETARCH" | sed s/amd64/x64/) \
  && npm ci --omit=dev --os=linux --cpu="$cpu" \
  && mkdir -p local/bin local/share/doc/node \
  && mv "node_modules/node-linux-$cpu/bin/node" local/bin \
  && mv "node_modules/node-linux-$cpu/LICENSE" local/share/doc/node

# The platform goes without saying, except for Buildah 1.28, which would take that of the stage before.
FROM --platform=$TARGETPLATFORM ${RUNTIME_IMAGE}
LABEL org.opencontainers.image.title=spegel-ts \
  org.opencontainers.image.description="Peer-to-peer OCI image mirror for Kubernetes nodes" \
  org.opencontainers.image.licenses=MIT
COPY --from=node /node/local /usr/local
COPY --from=program /program/dist /opt/spegel-ts
WORKDIR /
# Nobody, in the group that containerd's socket belongs to.
USER 65532:0
EXPOSE 5000 5001 9090
# What keeps memory small, here and in bin/spegel-ts: docs/image.md says why.
ENV MALLOC_ARENA_MAX=1
ENTRYPOINT ["/usr/local/bin/node", "--max-semi-space-size=2", "--expose-gc", "/opt/spegel-ts/spegel-ts.mjs"]

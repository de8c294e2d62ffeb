# jobcred in an image with nothing else in it: the agent, the docker helper, the CA roots, and a place for a volume.
#
#   docker build -t jobcred .
#
# It runs as any user, without capabilities and with a read-only root; docs/containers.md shows how. To have the binary in an
# image of your own, copy it from this one: `COPY --from=jobcred /jobcred /usr/local/bin/`.

# Any image with Rust 1.88 or later, a C compiler and static libc (in `libc6-dev`), make, and CA roots.
ARG BUILD_IMAGE=docker.io/library/rust:1-bookworm
# What the binaries need is in them, so that nothing has to be here. One with a shell is for debugging.
ARG RUNTIME_IMAGE=scratch
# How the programs are optimised: `release`, or `tested`, which builds in less time.
ARG PROFILE=release

FROM ${BUILD_IMAGE} AS build
ARG PROFILE
WORKDIR /source
COPY . .
# The folder of the socket is for every user to make a directory of their own in, as in /tmp: a new volume takes on its mode.
RUN make static PROFILE="${PROFILE}" \
    && mkdir -p /image/etc/ssl/certs /image/run \
    && cp -L /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && cp target/*/"${PROFILE}"/jobcred target/*/"${PROFILE}"/docker-credential-jobcred /image/ \
    && chmod 0555 /image/jobcred /image/docker-credential-jobcred \
    && mkdir -m 1777 /image/run/jobcred

# hadolint ignore=DL3006 # whose tag it is, is the argument's matter
FROM ${RUNTIME_IMAGE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="jobcred" \
      org.opencontainers.image.description="Azure tokens from one local agent, for every process of a training job" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /image/ /
# Within the volume: the agent makes this directory, and lets in whom it is told to.
ENV JOBCRED_SOCKET=/run/jobcred/agent/agent.sock
USER 65532:65532
# Engines that speak OCI alone ignore it; Kubernetes has probes of its own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/jobcred", "health"]
ENTRYPOINT ["/jobcred"]
CMD ["agent"]

# With a registry at hand: docker build -t phalanx:dev .
# Without one: docker/build makes the same image from binaries built on this machine.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN mkdir -p /out/data /out/shared && docker/static /out

FROM scratch
COPY --from=build /out/gwnode /out/gwctl /
# Volumes take over whose these are.
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build --chown=65532:65532 /out/shared /shared
USER 65532:65532
ENV PHALANX_DATA=/data
VOLUME ["/data"]
EXPOSE 8080 7000/tcp 7000/udp 9000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=2s --timeout=2s --start-period=20s CMD ["/gwnode", "health"]
ENTRYPOINT ["/gwnode"]
CMD ["run"]

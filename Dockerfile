# With a registry at hand: docker build -t phalanx:dev .
# Without one: docker/build makes the same image from a binary built on this machine.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN docker/static

FROM scratch
COPY --from=build /src/target/x86_64-unknown-linux-gnu/release/gwnode /gwnode
COPY --from=build /src/target/x86_64-unknown-linux-gnu/release/gwctl /gwctl
ENV PHALANX_DATA=/data
VOLUME ["/data"]
EXPOSE 8080 7000/tcp 7000/udp 9000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=2s --timeout=2s --start-period=20s CMD ["/gwnode", "health"]
ENTRYPOINT ["/gwnode"]
CMD ["run"]
